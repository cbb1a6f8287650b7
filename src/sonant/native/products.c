/* Products of a matrix with tokens: plain C, AVX2 and AVX512-VNNI, chosen by what was compiled in. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "linear.h"
#include "bands.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
static inline __attribute__((always_inline)) void wide_avx512(const Linear *l, int count, const float *x,
                                                              float *out, int out_stride, int first, int last) {
  const __m512i high = _mm512_set1_epi32((int)0xffff0000);
  for (int tile = first; tile < last; tile++) {
    const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, 16);
    __m512 total[MAX_BLOCK][4];
    for (int m = 0; m < count; m++)
      for (int j = 0; j < 4; j++) total[m][j] = _mm512_setzero_ps();
    for (int k = 0; k < l->inputs; k++, w += 2 * TILE) {
      __m512i a = _mm512_load_si512(w), b = _mm512_load_si512(w + 64);
      __m512 v[4] = {_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_and_si512(a, high)),
                     _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), _mm512_castsi512_ps(_mm512_and_si512(b, high))};
      for (int m = 0; m < count; m++) {
        __m512 by = _mm512_set1_ps(x[(size_t)m * l->inputs + k]);
        for (int j = 0; j < 4; j++) total[m][j] = _mm512_fmadd_ps(v[j], by, total[m][j]);
      }
    }
    for (int m = 0; m < count; m++)
      for (int j = 0; j < 4; j++)
        _mm512_storeu_ps(out + (size_t)m * out_stride + tile * TILE + j * 16, total[m][j]);
  }
}
#endif

/* The same for any processor; the compiler makes vectors of the inner loops. */
static void wide_plain(const Linear *l, int count, const float *x, float *out, int out_stride, int first,
                       int last) {
  for (int tile = first; tile < last; tile++)
    for (int m = 0; m < count; m++) {
      const uint32_t *w = (const uint32_t *)(l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, 16));
      float total[TILE] = {0};
      for (int k = 0; k < l->inputs; k++, w += TILE / 2) {
        float by = x[(size_t)m * l->inputs + k];
        for (int half = 0; half < 2; half++) {
          float *to = total + half * 32;
          for (int i = 0; i < 16; i++) {
            union { uint32_t bits; float value; } low = {w[half * 16 + i] << 16}, up = {w[half * 16 + i] & 0xffff0000u};
            to[i] += low.value * by;
            to[16 + i] += up.value * by;
          }
        }
      }
      memcpy(out + (size_t)m * out_stride + tile * TILE, total, sizeof total);
    }
}

#if defined(__AVX512VNNI__)
#define DOT(acc, w, a) _mm512_dpbusd_epi32(acc, w, a)
#define FOUR(at) _mm512_set1_epi32(*(const unaligned_int *)(at))
typedef int32_t __attribute__((aligned(1), may_alias)) unaligned_int;

/* Adds to acc the products of `depth` inputs of a tile with plane `a` of the codes. */
static inline __attribute__((always_inline)) void dots_avx512(__m512i (*acc)[4], int count, int bits, int ahead,
                                                              const uint8_t *w, const int8_t *a, int stride,
                                                              int depth) {
  const __m512i low = _mm512_set1_epi8(15);
  if (bits == 8) {
    for (int k = 0; k < depth; k += 4, w += 256) { /* the processor's own prefetch does best here */
      __m512i v[4];
      for (int j = 0; j < 4; j++) v[j] = _mm512_load_si512(w + j * 64);
      for (int m = 0; m < count; m++) {
        __m512i by = FOUR(a + (size_t)m * stride + k);
        for (int j = 0; j < 4; j++) acc[m][j] = DOT(acc[m][j], v[j], by);
      }
    }
  } else {
    for (int k = 0; k < depth; k += 8, w += 256) {
      if (ahead)
        for (int j = 0; j < 4; j++) _mm_prefetch((const char *)w + 8192 + j * 64, _MM_HINT_T0);
      for (int j = 0; j < 4; j++) {
        __m512i v = _mm512_load_si512(w + j * 64);
        __m512i lower = _mm512_and_si512(v, low), upper = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        for (int m = 0; m < count; m++) {
          const int8_t *eight = a + (size_t)m * stride + k;
          acc[m][j] = DOT(DOT(acc[m][j], lower, FOUR(eight)), upper, FOUR(eight + 4));
        }
      }
    }
  }
}

/* Sums across groups are kept in `out`, so that the sums within a group keep their registers. Of two planes the first is
   summed, then 256 times that and the second: the group's weights are in the core's nearest cache by then. */
static inline __attribute__((always_inline)) void tiles_avx512(
    const Linear *l, int count, int bits, int planes, const int8_t *codes, const float *code_scales,
    const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int code_stride = 2 * l->inputs, scale_stride = l->inputs / l->group, sum_stride = 2 * scale_stride;
  const int groups = l->inputs / l->group, group = l->group, bytes = TILE * group * bits / 8;
  for (int tile = first; tile < last; tile++) {
    const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
    const uint16_t *s = l->scales + (size_t)tile * groups * TILE;
    for (int g = 0; g < groups; g++, s += TILE, w += bytes) {
      const int8_t *a = codes + g * group;
      __m512i acc[MAX_BLOCK][4];
      if (planes == 2) {
        for (int m = 0; m < count; m++)
          for (int j = 0; j < 4; j++) acc[m][j] = _mm512_setzero_si512();
        dots_avx512(acc, count, bits, count <= 2, w, a, code_stride, group);
      }
      for (int m = 0; m < count; m++) {
        __m512i start = _mm512_set1_epi32(-(bits == 8 ? 128 : 8) * code_sums[m * sum_stride + g]);
        for (int j = 0; j < 4; j++)
          acc[m][j] = planes == 2 ? _mm512_add_epi32(_mm512_slli_epi32(acc[m][j], 8), start) : start;
      }
      dots_avx512(acc, count, bits, planes == 1 && count <= 2, w, planes == 2 ? a + l->inputs : a, code_stride, group);
      for (int j = 0; j < 4; j++) {
        const __m512 scale = _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(s + j * 16))), 16));
        for (int m = 0; m < count; m++) {
          float *to = out + (size_t)m * out_stride + tile * TILE + j * 16;
          __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(code_scales[m * scale_stride + g] * l->part));
          __m512 sum = _mm512_cvtepi32_ps(acc[m][j]);
          _mm512_storeu_ps(to, g || adds ? _mm512_fmadd_ps(sum, by, _mm512_loadu_ps(to)) : _mm512_mul_ps(sum, by));
        }
      }
    }
  }
}
#endif

/* A code from its planes; the second lies `inputs` behind the first. */
static inline int32_t code_of(const int8_t *code, int planes, int inputs) {
  return planes == 2 ? 256 * code[0] + code[inputs] : code[0];
}

#if defined(__AVX2__) && defined(__FMA__)
/* Codes as this path keeps them: in 16 bits, four inputs as 0, 2, 1, 3, which is how they meet the even and the odd bytes
   of a weight. The int4 part of 12 bits meets the first plane of a code, which is its upper half, rounded. */
static inline void first_planes(const int16_t *codes, int group, int16_t *to) {
  for (int k = 0; k < group; k += 16) {
    const __m256i q = _mm256_loadu_si256((const __m256i *)(codes + k));
    _mm256_storeu_si256((__m256i *)(to + k), _mm256_srai_epi16(_mm256_add_epi16(q, _mm256_set1_epi16(128)), 8));
  }
}

/* The bytes of four inputs of eight rows as the even and the odd ones, still unsigned; of int4 those of half 0 or 1. */
static inline __attribute__((always_inline)) void unpack_avx2(const uint8_t *w, int bits, int half, __m256i *even,
                                                              __m256i *odd) {
  const __m256i v = _mm256_loadu_si256((const __m256i *)w);
  const __m256i low = _mm256_set1_epi16(bits == 8 ? 0x00ff : 0x000f);
  if (bits == 8) {
    *even = _mm256_and_si256(v, low);
    *odd = _mm256_srli_epi16(v, 8);
  } else if (half == 0) {
    *even = _mm256_and_si256(v, low);
    *odd = _mm256_and_si256(_mm256_srli_epi16(v, 8), low);
  } else {
    *even = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    *odd = _mm256_srli_epi16(v, 12);
  }
}

/* acc + unsigned bytes (the even ones of each four, the odd ones) times codes of 8 or 16 bits. maddubs would saturate at
   int16 with 255 x 127 twice, so the bytes are widened first. */
static inline __m256i dot_avx2(__m256i acc, __m256i even, __m256i odd, __m256i a_even, __m256i a_odd) {
  return _mm256_add_epi32(acc, _mm256_add_epi32(_mm256_madd_epi16(even, a_even), _mm256_madd_epi16(odd, a_odd)));
}

static inline __m256 eight_scales(const uint16_t *s) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)s)), 16));
}

/* Adds to acc the products of a group of a tile, from 8 * wide rows of it, with `count` tokens: each weight is read and
   widened once for all of them. */
static inline __attribute__((always_inline)) void dots_avx2(__m256i (*acc)[4], int count, int wide, int bits,
                                                            const uint8_t *w, const int16_t *const *a, int group) {
  const int step = bits == 8 ? 4 : 8;
  for (int k = 0; k < group; k += step, w += 256)
    for (int half = 0; half < step / 4; half++) {
      __m256i even[4], odd[4];
      for (int j = 0; j < wide; j++) unpack_avx2(w + j * 32, bits, half, even + j, odd + j);
      for (int m = 0; m < count; m++) {
        const __m256i a_even = pair_of(a[m] + k + 4 * half), a_odd = pair_of(a[m] + k + 4 * half + 2);
        for (int j = 0; j < wide; j++) acc[m][j] = dot_avx2(acc[m][j], even[j], odd[j], a_even, a_odd);
      }
    }
}

/* Sums across groups are kept in `out`, so that the sums within a group keep their registers. `halved`: the codes' first
   planes are what is met. */
static inline __attribute__((always_inline)) void tiles_avx2(
    const Linear *l, int count, int bits, int halved, const int16_t *codes, const float *code_scales,
    const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int groups = l->inputs / l->group, group = l->group, bytes = TILE * group * bits / 8;
  const int wide = count <= 2 ? 4 : 2; /* vectors of eight rows that fit the registers */
  int16_t planes[MAX_BLOCK][128];
  for (int tile = first; tile < last; tile++) {
    const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
    const uint16_t *s = l->scales + (size_t)tile * groups * TILE;
    for (int m = 0; !adds && m < count; m++) memset(out + (size_t)m * out_stride + tile * TILE, 0, sizeof(float) * TILE);
    for (int g = 0; g < groups; g++, s += TILE, w += bytes) {
      const int16_t *a[MAX_BLOCK];
      for (int m = 0; m < count; m++) {
        a[m] = codes + (size_t)m * l->inputs + g * group;
        if (halved) {
          first_planes(a[m], group, planes[m]);
          a[m] = planes[m];
        }
      }
      for (int part = 0; part < TILE / 8; part += wide) {
        __m256i acc[MAX_BLOCK][4];
        for (int m = 0; m < count; m++)
          for (int j = 0; j < wide; j++)
            acc[m][j] = _mm256_set1_epi32(-(bits == 8 ? 128 : 8) * code_sums[(size_t)m * 2 * groups + g]);
        dots_avx2(acc, count, wide, bits, w + part * 32, a, group);
        for (int j = 0; j < wide; j++) {
          const __m256 scale = eight_scales(s + (part + j) * 8);
          for (int m = 0; m < count; m++)
            add_group(out + (size_t)m * out_stride + tile * TILE + (part + j) * 8, acc[m][j], scale,
                      code_scales[(size_t)m * groups + g] * l->part);
        }
      }
    }
  }
}

/* A group of a tile in 16 bits, signed: [4][group / 4][even of 16 rows, odd of 16 rows]. */
static void widen_tile(const uint8_t *w, int bits, int group, int16_t *to) {
  const __m256i offset = _mm256_set1_epi16(bits == 8 ? 128 : 8);
  const int step = bits == 8 ? 4 : 8;
  for (int k = 0; k < group; k += step, w += 256)
    for (int half = 0; half < step / 4; half++)
      for (int j = 0; j < 8; j++) {
        __m256i even, odd;
        unpack_avx2(w + j * 32, bits, half, &even, &odd);
        int16_t *at = to + ((size_t)(j / 2) * (group / 4) + k / 4 + half) * 64 + j % 2 * 16;
        _mm256_store_si256((__m256i *)at, _mm256_sub_epi16(even, offset));
        _mm256_store_si256((__m256i *)(at + 32), _mm256_sub_epi16(odd, offset));
      }
}

/* Many tokens: a group of a tile is widened once for a chunk of them, and sums lie side by side until they are whole. The
   same integers and the same float32 sums in the same order as of few. */
static void many_avx2(const Linear *l, int count, const Input *in, float *out, int out_stride, int first, int last) {
  const int groups = l->inputs / l->group, group = l->group;
  __attribute__((aligned(64))) int16_t weights[TILE * 128], planes[CHUNK * 128];
  __attribute__((aligned(64))) float sums[CHUNK * TILE];
  for (int begin = 0; begin < count; begin += CHUNK) {
    const int rows = count - begin < CHUNK ? count - begin : CHUNK;
    const int16_t *codes = (const int16_t *)in->codes + (size_t)begin * l->inputs;
    const float *code_scales = in->scales + (size_t)begin * groups;
    for (int tile = first; tile < last; tile++) {
      memset(sums, 0, sizeof(float) * TILE * ((rows + BAND - 1) / BAND * BAND));
      for (const Linear *part = l; part; part = part->fine) {
        const int bits = part->bits, halved = part != l && l->planes == 2;
        const uint8_t *w = part->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
        const uint16_t *s = part->scales + (size_t)tile * groups * TILE;
        for (int g = 0; g < groups; g++, s += TILE, w += TILE * group * bits / 8) {
          const int16_t *a = codes + g * group;
          size_t stride = l->inputs;
          widen_tile(w, bits, group, weights);
          if (halved) {
            for (int m = 0; m < rows; m++) first_planes(a + m * stride, group, planes + m * group);
            a = planes;
            stride = group;
          }
          for (int m = 0; m < rows; m += BAND)
            for (int j = 0; j < 4; j++)
              band_avx2(rows - m - 1, weights + j * 16 * group, a + m * stride, stride, group, eight_scales(s + j * 16),
                        eight_scales(s + j * 16 + 8), code_scales + (size_t)m * groups + g, groups, part->part,
                        sums + m * TILE + j * 16);
        }
      }
      for (int m = 0; m < rows; m++)
        memcpy(out + (size_t)(begin + m) * out_stride + tile * TILE, sums + m * TILE, sizeof(float) * TILE);
    }
  }
}
#endif

static void tiles_plain(const Linear *l, int count, int bits, int planes, const int8_t *codes, const float *code_scales,
                        const int32_t *code_sums, int adds, float *out, int out_stride, int first, int last) {
  const int groups = l->inputs / l->group, group = l->group;
  for (int m = 0; m < count; m++)
    for (int tile = first; tile < last; tile++) {
      const uint8_t *w = l->weights + (size_t)tile * sonant_weight_bytes(TILE, l->inputs, bits);
      const uint16_t *s = l->scales + (size_t)tile * groups * TILE;
      float total[TILE] = {0}, *to = out + (size_t)m * out_stride + tile * TILE;
      if (adds) memcpy(total, to, sizeof total);
      for (int g = 0; g < groups; g++, s += TILE) {
        const int8_t *a = codes + (size_t)m * 2 * l->inputs + g * group;
        int32_t acc[TILE];
        for (int j = 0; j < TILE; j++) acc[j] = -(bits == 8 ? 128 : 8) * code_sums[(size_t)m * 2 * groups + g];
        const int step = bits == 8 ? 4 : 8;
        for (int k = 0; k < group; k += step, w += 256) {
          int32_t q[8];
          for (int i = 0; i < step; i++) q[i] = code_of(a + k + i, planes, l->inputs);
          for (int j = 0; j < TILE; j++)
            for (int i = 0; i < 4; i++) {
              const int32_t v = w[j * 4 + i];
              acc[j] += bits == 8 ? v * q[i] : (v & 15) * q[i] + (v >> 4) * q[4 + i];
            }
        }
        const float by = code_scales[(size_t)m * groups + g] * l->part;
        for (int j = 0; j < TILE; j++) total[j] += (float)acc[j] * (wide_scale(s[j]) * by);
      }
      memcpy(to, total, sizeof total);
    }
}

static int chosen_path = -1; /* 0 plain, 1 AVX2, 2 AVX512-VNNI; -1 the best that was compiled in */

int sonant_best_path(void) {
#if defined(__AVX512VNNI__)
  return 2;
#elif defined(__AVX2__) && defined(__FMA__)
  return 1;
#else
  return 0;
#endif
}

/* Threads that OpenMP, and so torch, uses for work begun on the calling thread. */
void sonant_limit_threads(int threads) { omp_set_num_threads(threads); }

void sonant_choose_path(int path) { chosen_path = path; }
int sonant_path(void) { return chosen_path < 0 ? sonant_best_path() : chosen_path; }

/* out[m][tile * 64 ...] for tiles first..last of `count` (1 to 4) quantised tokens; `adds` to what is there. `halved`: the
   first planes of the codes are met. */
static void narrow_tiles(const Linear *l, int count, int halved, const int8_t *codes, const float *scales, const int32_t *sums,
                         int adds, float *out, int out_stride, int first, int last, int path) {
#if defined(__AVX512VNNI__)
  if (path == 2) {
#define CASE(M, B, P) \
  if (count == M && l->bits == B && l->planes == P) { \
    tiles_avx512(l, M, B, P, codes, scales, sums, adds, out, out_stride, first, last); \
    return; \
  }
#define CASES(B, P) CASE(1, B, P) CASE(2, B, P) CASE(3, B, P) CASE(4, B, P)
    CASES(8, 1) CASES(8, 2) CASES(4, 1) CASES(4, 2)
#undef CASES
#undef CASE
  }
#endif
#if defined(__AVX2__) && defined(__FMA__)
  if (path == 1) {
#define CASE(M, B) \
  if (count == M && l->bits == B) { \
    tiles_avx2(l, M, B, halved, (const int16_t *)codes, scales, sums, adds, out, out_stride, first, last); \
    return; \
  }
    CASE(1, 8) CASE(2, 8) CASE(3, 8) CASE(4, 8) CASE(1, 4) CASE(2, 4) CASE(3, 4) CASE(4, 4)
#undef CASE
  }
#endif
  (void)path, (void)halved;
  tiles_plain(l, count, l->bits, l->planes, codes, scales, sums, adds, out, out_stride, first, last);
}

static void run_blocks(const Linear *l, int count, const Input *in, float *out, int out_stride, int first,
                      int last) {
  const int groups = l->inputs / l->group;
  const int path = sonant_path();
  for (int m = 0; m < count; m += MAX_BLOCK) {
    const int block = count - m < MAX_BLOCK ? count - m : MAX_BLOCK;
    float *o = out + (size_t)m * out_stride;
    if (l->bits == 16) {
      const float *x = in->x + (size_t)m * l->inputs;
#if defined(__AVX512F__)
      if (path == 2) {
        switch (block) {
          case 1: wide_avx512(l, 1, x, o, out_stride, first, last); break;
          case 2: wide_avx512(l, 2, x, o, out_stride, first, last); break;
          case 3: wide_avx512(l, 3, x, o, out_stride, first, last); break;
          default: wide_avx512(l, 4, x, o, out_stride, first, last);
        }
        continue;
      }
#endif
      wide_plain(l, block, x, o, out_stride, first, last);
      continue;
    }
    const int8_t *c = in->codes + (size_t)m * 2 * l->inputs;
    const float *s = in->scales + (size_t)m * groups;
    const int32_t *u = in->sums + (size_t)m * 2 * groups;
    for (const Linear *part = l; part; part = part->fine) {
      narrow_tiles(part, block, part != l && l->planes == 2, c, s, u, part != l, o, out_stride, first, last, path);
      u += groups; /* what meets the int4 part is codes[0] alone */
    }
  }
}

/* Many tokens take one tile after the other, so that its weights come from memory once and from the core's own
   cache for all blocks but the first. With AVX2 they go in whole bands; a few that are left over go as a few do. */
void sonant_run_tiles(const Linear *l, int count, const Input *in, float *out, int out_stride, int first,
                      int last) {
  if (count <= MAX_BLOCK) {
    run_blocks(l, count, in, out, out_stride, first, last);
    return;
  }
#if defined(__AVX2__) && defined(__FMA__)
  if (count >= 2 * BAND && l->bits != 16 && sonant_path() == 1) {
    const int rest = count % BAND > MAX_BLOCK ? 0 : count % BAND, many = count - rest;
    many_avx2(l, many, in, out, out_stride, first, last);
    if (!rest) return;
    const size_t groups = l->inputs / l->group;
    const Input tail = {NULL, in->codes + (size_t)many * 2 * l->inputs, in->scales + many * groups,
                        in->sums + many * 2 * groups};
    run_blocks(l, rest, &tail, out + (size_t)many * out_stride, out_stride, first, last);
    return;
  }
#endif
  for (int tile = first; tile < last; tile++) run_blocks(l, count, in, out, out_stride, tile, tile + 1);
}

/* y [count][rows] = x [count][inputs] times the weights, plus bias [rows] if there is one. False when
   memory runs out. */
int sonant_linear_run(const Linear *l, int count, const float *x, const float *bias, float *y, int threads) {
  if (count < 1 || threads < 1) return WRONG_SIZE;
  const int groups = l->inputs / l->group;
  Input in = {(float *)x, NULL, NULL, NULL};
  if (l->bits != 16) {
    in.codes = malloc((size_t)2 * count * l->inputs);
    in.scales = malloc(sizeof(float) * count * groups);
    in.sums = malloc(sizeof(int32_t) * 2 * count * groups);
    if (!in.codes || !in.scales || !in.sums) { free(in.codes); free(in.scales); free(in.sums); return 0; }
  }
#pragma omp parallel num_threads(threads)
  {
    if (l->bits != 16) {
#pragma omp for schedule(static)
      for (int m = 0; m < count; m++) sonant_put(l, &in, m, x + (size_t)m * l->inputs);
    }
    int t = omp_get_thread_num(), n = omp_get_num_threads(), tiles = l->rows / TILE;
    int first = tiles * t / n, last = tiles * (t + 1) / n;
    sonant_run_tiles(l, count, &in, y, l->rows, first, last);
    if (bias)
      for (int m = 0; m < count; m++)
        for (int i = first * TILE; i < last * TILE; i++) y[(size_t)m * l->rows + i] += bias[i];
  }
  free(in.codes); free(in.scales); free(in.sums);
  return 1;
}
