/* Included first in every C++ source of llama.cpp by llama-build.cmake.
 *
 * GCC before 11.5, 12.4, 13.3 and 14 tells its optimiser that _tile_loadconfig reads 8 bytes of the 64 it reads (GCC bug
 * 114098), so that llama.cpp's stores of the other 56 are dropped and the first matrix product on a CPU with AMX ends
 * the process ("general protection fault"; llama.cpp's pull request 26954). Debian 12 and Ubuntu 22.04 have such a GCC. */
#ifdef __AMX_TILE__
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(config)))
#endif
