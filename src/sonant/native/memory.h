/* Memory of weights, shared by the kernels. */
#ifndef SONANT_MEMORY_H
#define SONANT_MEMORY_H
#include <stddef.h>

typedef struct Slab Slab;

/* `bytes` of memory at a page's boundary, and the slab that it lies in; NULL when memory runs out. */
void *sonant_take(size_t bytes, Slab **owner);

/* Give back one piece taken from a slab. */
void sonant_leave(Slab *slab);

#endif
