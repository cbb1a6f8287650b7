/* A decoder stack of the Qwen kind, and what the threads of any stack need to run through it together. */
#ifndef SONANT_STACK_H
#define SONANT_STACK_H
#include <math.h>
#include <sched.h>
#include <string.h>
#include "linear.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef struct {
  Linear *qkv, *out, *gate_up, *down;
  const float *input_norm, *post_norm, *query_norm, *key_norm, *qkv_bias;
} Layer;

typedef struct {
  int arrived, round;
} Barrier;

typedef struct {
  int layers, width, heads, kv_heads, head_dim, intermediate, max_tokens;
  float eps, theta;
  const float *final_norm;
  Layer *layer;
  float *x, *wide, *attended, *active; /* scratch, [max_tokens][...] */
  Input *input;                        /* scratch, tokens as the next matrix takes them */
  Barrier barrier;
} Stack;

/* A cache that the caller owns: keys[l], values[l] are [slots][kv_heads][capacity][head_dim]; cosines and
   sines are [angles][head_dim / 2], of the positions from 0, of which none is beyond the angles. */
typedef struct {
  float *const *keys, *const *values;
  int slots, capacity;
  const float *cosines, *sines;
} Cache;

/* 1 once the stack was given all its layers and its last norm. */
static inline int is_whole(const Stack *st) {
  for (int i = 0; i < st->layers; i++)
    if (!st->layer[i].qkv) return 0;
  return st->final_norm != NULL;
}

/* All threads meet here. OpenMP's own barrier spins for milliseconds, which on a busy machine keeps the
   thread that is waited for from running; this one soon gives its processor away. */
static inline void meet(Barrier *b, int threads) {
  if (threads == 1) return;
  const int round = __atomic_load_n(&b->round, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&b->round, round + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int turn = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; turn++) {
    if (turn < 4000) {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    } else {
      sched_yield();
    }
  }
}

/* What a phase needs of all tokens is split over threads by token when there are many. */
#define EACH_TOKEN for (int m = t; m < count; m += n)

/* e^x, of 88 where x is more; relative error below 2e-7: 2^n times a polynomial; vectorises, unlike expf. */
static inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  float n = rintf(x * 1.44269504f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)n + 127) << 23;
  float two;
  memcpy(&two, &bits, 4);
  return p * two;
}

/* Softmax weights of far-off positions are next to nothing, and their products with values are subnormal
   numbers, on which x86 takes a hundred times as long. They count as zero until `allow_subnormals`. */
static inline unsigned flush_subnormals(void) {
#if defined(__SSE2__)
  unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}

static inline void allow_subnormals(unsigned before) {
#if defined(__SSE2__)
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

/* Floats of memory that one thread needs in `sonant_run_layers`, with positions below `longest`. */
size_t sonant_layer_scratch(const Stack *st, int longest);

/* What thread t of n does for the `count` tokens in st->x; token m is position positions[m] of cache row
   rows[m]. hidden [count][width] gets the output of the final norm, complete after the next `meet`. scratch is the
   thread's own. */
void sonant_run_layers(Stack *st, int t, int n, int count, const int32_t *rows, const int32_t *positions,
                       const Cache *cache, float *hidden, float *scratch);

#endif
