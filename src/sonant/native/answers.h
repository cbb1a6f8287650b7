/* What a call may answer; Python makes errors of the last two. */
#ifndef SONANT_ANSWERS_H
#define SONANT_ANSWERS_H

#define DONE 1
#define NO_MEMORY 0
#define WRONG_SIZE (-1) /* of something that only the caller could promise: nothing was touched */

#endif
