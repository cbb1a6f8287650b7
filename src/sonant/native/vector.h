/* What one register holds, and how many of them sums may take.

   Of vectors wider than a register the compiler keeps sums in memory, at a tenth of the speed or less. A quarter of
   the registers is left for weights and inputs. */
#ifndef SONANT_VECTOR_H
#define SONANT_VECTOR_H

#if defined(__AVX512F__)
#define LANES 16
#define SUMS 24
#elif defined(__AVX__)
#define LANES 8
#define SUMS 12
#elif defined(__aarch64__)
#define LANES 4
#define SUMS 24
#else
#define LANES 4
#define SUMS 12
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));

#endif
