/* The one routine of BLAS that MLX multiplies float32 matrices with, passed on to the OpenBLAS that numpy's wheel brings. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

typedef void (*sgemm)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *,
                      int64_t);

static sgemm find(void) {
    void *library = dlopen(OPENBLAS, RTLD_NOW | RTLD_LOCAL);
    sgemm found = library ? (sgemm)dlsym(library, "scipy_cblas_sgemm64_") : 0;
    if (!found) abort();
    return found;
}

void cblas_sgemm(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float *a, int a_step, const float *b,
                 int b_step, float beta, float *c, int c_step) {
    static sgemm call;
    if (!call) call = find();
    call(order, a_form, b_form, m, n, k, alpha, a, a_step, b, b_step, beta, c, c_step);
}
