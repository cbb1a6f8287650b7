/* A decoder stack of the Qwen kind, and what its threads need to run through it together. */
#ifndef SONANT_STACK_H
#define SONANT_STACK_H
#include <sched.h>
#include "linear.h"

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
   sines are [capacity][head_dim / 2]. */
typedef struct {
  float *const *keys, *const *values;
  int slots, capacity;
  const float *cosines, *sines;
} Cache;

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

/* Floats of memory that one thread needs in `sonant_run_layers`, with positions below `longest`. */
size_t sonant_layer_scratch(const Stack *st, int longest);

/* What thread t of n does for the `count` tokens in st->x; token m is position positions[m] of cache row
   rows[m]. hidden [count][width] gets the output of the final norm, complete after the next `meet`. scratch is the
   thread's own. */
void sonant_run_layers(Stack *st, int t, int n, int count, const int32_t *rows, const int32_t *positions,
                       const Cache *cache, float *hidden, float *scratch);

#endif
