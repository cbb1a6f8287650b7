/* Six tokens times sixteen rows of weights, both in 16 bits: what AVX2 does with many tokens.

   Its instruction multiplies 16 pairs of int16 and adds neighbours, twice in a cycle; everything around it has to stay out of
   its way: weights are widened beforehand, and sums keep their registers for a whole group. */
#ifndef SONANT_BANDS_H
#define SONANT_BANDS_H
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 96 /* tokens whose codes stay in a core's second cache while all tiles meet them */
#define BAND 6   /* of these, tokens that meet sixteen rows at a time: twelve sums fit the registers */

/* Two inputs of a token for every pair of weights. */
static inline __m256i pair_of(const int16_t *codes) {
  int32_t pair;
  memcpy(&pair, codes, sizeof pair);
  return _mm256_set1_epi32(pair);
}

/* to[0..8] + the sums of a group times their scale; always added by the same instruction, so that a token's are the same
   in any company. */
static inline __attribute__((always_inline)) void add_group(float *to, __m256i acc, __m256 scale, float code_scale) {
  const __m256 by = _mm256_mul_ps(scale, _mm256_set1_ps(code_scale));
  _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), by, _mm256_loadu_ps(to)));
}

/* Adds to sums [BAND][64] the products of a group, w [group / 2][16][2] at a 32nd byte, with tokens 0 to `last` of a, `stride`
   apart, whose scales are `scale_stride` apart; what of the band is behind the last token repeats it. Each sum has a name
   and is added to in place: of arrays gcc 12 keeps some in memory, at half the speed. */
static inline void band_avx2(int last, const int16_t *w, const int16_t *a, size_t stride, int group, __m256 low_scale,
                             __m256 high_scale, const float *code_scales, size_t scale_stride, float part, float *sums) {
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define START(M) \
  const size_t row##M = M < last ? M : last; \
  const int16_t *a##M = a + row##M * stride; \
  __m256i low##M = _mm256_setzero_si256(), high##M = low##M;
#define ADD(TO, W, BY) \
  { \
    const __m256i products = _mm256_madd_epi16(W, BY); \
    __asm__ volatile("vpaddd %1, %0, %0" : "+x"(TO) : "x"(products)); \
  }
#define DOT(M) \
  { \
    const __m256i by = pair_of(a##M + k); \
    ADD(low##M, first, by) ADD(high##M, second, by) \
  }
#define FINISH(M) \
  { \
    const float by = code_scales[row##M * scale_stride] * part; \
    add_group(sums + M * 64, low##M, low_scale, by); \
    add_group(sums + M * 64 + 8, high##M, high_scale, by); \
  }
  EACH(START)
  for (int k = 0; k < group; k += 2, w += 32) {
    const __m256i first = _mm256_load_si256((const __m256i *)w), second = _mm256_load_si256((const __m256i *)(w + 16));
    EACH(DOT)
  }
  EACH(FINISH)
#undef EACH
#undef START
#undef ADD
#undef DOT
#undef FINISH
}

#endif
#endif
