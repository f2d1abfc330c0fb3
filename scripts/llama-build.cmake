# Read by CMake inside llama.cpp's project(), see scripts/install.
#
# llama-cpp-python forces LLAMA_BUILD_COMMON on in the cache, although the shared library it ships does not use
# llama.cpp's "common" library (helpers of its command-line tools, chat parsers). A normal variable set here wins over
# the cache. On two cores the build takes 2 min 27 s instead of 5 min 15 s. Native CPU features and OpenMP stay on.
set(LLAMA_BUILD_COMMON OFF)

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/llama-amx.h\">")
endif()
