/* The sine of the Snake activations, shared by the kernels. */
#ifndef SONANT_SNAKE_H
#define SONANT_SNAKE_H
#include <math.h>

/* sin(z)^2, which has period pi; absolute error below 2e-7 for |z| up to some thousands. */
static inline float sine_squared(float z) {
  const float n = rintf(z * 0.318309886f);
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  const float f = __builtin_fmaf(n, 8.74227766e-8f, __builtin_fmaf(n, -3.14159274f, z));
#else
  const float f = (float)((double)z - 3.14159265358979323846 * n);
#endif
  const float q = f * f;
  float p = -2.50521084e-8f;
  p = p * q + 2.75573192e-6f;
  p = p * q - 1.98412698e-4f;
  p = p * q + 8.33333333e-3f;
  p = p * q - 1.66666667e-1f;
  const float s = f + f * q * p;
  return s * s;
}

#endif
