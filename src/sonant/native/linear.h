/* A matrix with bfloat16, 12-bit, int8 or int4 weights, and tokens as it takes them. Plain C behind a C ABI.

   int8 and int4 weights are quantised symmetrically by groups along the input axis, activations by the same groups on
   the fly: to int8 (one plane), or to 16 bits in two planes of int8, 256 times the first plus the second, which meet the
   same weights while these are at hand. Sums are exact int32 within a group and float32 across groups. A 12-bit weight is
   an int8 and, in another matrix, an int4 of a sixteenth the scale, which is multiplied with the first plane only: what
   the second would add is below the weight's own rounding. bfloat16 weights meet float32 activations: nothing is lost
   when the checkpoint was bfloat16, and half the bytes of float32 are read.

   Weight layout: tiles of 64 output rows; inside a tile [K/4][64][4] bytes holding w + 128 (int8), or
   [K/8][64][4] bytes with w + 8 of k..k+3 in the low nibbles and k+4..k+7 in the high ones (int4);
   bfloat16 scales [tile][K/group][64]; 12 bits are all int8 tiles, then all int4 tiles; or, for bfloat16 weights,
   [K][2][16][2] with rows i and i + 16 of a half tile side by side, so that one shift and one mask widen them. Integers
   are stored unsigned, because the dot product instructions multiply unsigned by signed bytes; the offset is taken out
   through the sum of the activations. */
#ifndef SONANT_LINEAR_H
#define SONANT_LINEAR_H
#include <stddef.h>
#include <stdint.h>
#include "answers.h"
#include "memory.h"

#define TILE 64
#define MAX_BLOCK 4

typedef struct Linear {
  int rows, inputs, bits, group, planes;
  uint8_t *weights;
  uint16_t *scales;
  Slab *slab;
  struct Linear *fine; /* the int4 part of 12-bit weights, else NULL; its products are `part` times its scales */
  float part;
} Linear;

/* Tokens as a matrix takes them: floats for bfloat16 weights, codes, scales and sums otherwise. A token has room for two
   planes of codes; AVX2 multiplies 16 bits, and keeps them there as int16. */
typedef struct Input {
  float *x;
  int8_t *codes;
  float *scales;
  int32_t *sums;
} Input;

size_t sonant_weight_bytes(int rows, int inputs, int bits);

/* What multiplies codes, and so how they are kept: 0 plain C, 1 AVX2, 2 AVX512-VNNI. */
int sonant_path(void);

/* A bfloat16 scale as a float. */
static inline float wide_scale(uint16_t scale) {
  union { uint32_t bits; float value; } wide = {(uint32_t)scale << 16};
  return wide.value;
}

/* Room for `tokens` of up to `inputs` values, whatever matrix takes them; 0 when memory runs out. */
int sonant_input_fill(Input *in, int tokens, int inputs);
void sonant_input_drop(Input *in);

/* x [inputs] becomes token m of the input. */
void sonant_put(const Linear *l, const Input *in, int m, const float *x);

/* out[m][tile * 64 ...] for tiles first..last of all tokens. */
void sonant_run_tiles(const Linear *l, int count, const Input *in, float *out, int out_stride, int first, int last);

#endif
