/* An int8 network, row by row: no map is ever whole in memory.
 *
 * A map (rows, columns, channels) is kept as a ring of its latest rows, with the columns of its padding beside it. Each
 * layer makes its next row as soon as the rows that it needs are there. All tables are constants of the model; all that
 * changes lies in memory that the caller owns, of network.memory_bytes, aligned to 4 bytes.
 *
 * C99: no allocation, no recursion, no global state, no floating point. Arithmetic shifts of negative numbers to the
 * right are assumed, as every compiler for these cores has them.
 */
#ifndef EDGEKD_NETWORK_H
#define EDGEKD_NETWORK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EDGEKD_CONVOLUTION, EDGEKD_DEPTHWISE, EDGEKD_MAX_POOL,  /* a row from some rows */
    EDGEKD_MEANS, EDGEKD_MAXIMA, EDGEKD_DEVIATIONS,         /* a part of a vector from all rows */
    EDGEKD_LOOK_UP, EDGEKD_ADD, EDGEKD_MULTIPLY             /* value by value; the last two of two maps */
};

typedef struct {
    uint16_t rows, columns, channels;
    uint16_t left, right; /* columns of padding that lie in each row of the ring */
    uint16_t ring;        /* rows that are kept */
    uint16_t parts;       /* layers that write each row; it is there when all have */
    int8_t zero_point;
    const int8_t *beyond; /* a row of padding, as long as one of the ring, and some bytes */
    uint32_t place;       /* of the ring in the memory */
} edgekd_map;

typedef struct {
    uint8_t kind, source, target, other; /* other: the second source of a sum or product */
    uint8_t kernel_rows, kernel_columns, stride_rows, stride_columns;
    uint8_t top, left; /* padding above, and columns of the source's padding that are used */
    int8_t low, high;
    int8_t exponent;
    uint8_t doublings; /* of what is known of all rows: how often it is doubled before a parameter is added */
    /* of a convolution (outputs, kernel rows, kernel columns * inputs), each row filled with zeros to a multiple of 4;
     * depthwise (channels / 4, kernel rows, kernel columns, 4), filled with zeros; of a look-up (1 or channels, 256) */
    const int8_t *weights;
    /* (outputs, 2): what a sum begins with, and its mantissa; over all rows and of products likewise; of a sum of two
     * maps that, and both mantissas */
    const int32_t *parameters;
    const uint16_t *table; /* of means (1 or channels, 256, bins), or none; of a product int16 (2, 256) */
    uint16_t bins, start;  /* start: the first channel of the target that is written */
    uint16_t shared;       /* whether one table serves all channels */
    uint8_t row_cells, column_cells;
    const uint16_t *row_edges, *column_edges; /* the first and the one past the last of each cell */
    uint32_t place;                           /* of the sums in the memory */
    uint32_t least;                           /* of a deviation's root */
} edgekd_layer;

typedef struct {
    uint8_t maps, layers;
    uint8_t source; /* of the classifier */
    uint8_t several; /* classes may be there at once: each has a sigmoid, not all a softmax */
    uint16_t classes;
    const edgekd_map *map; /* the first is what enters */
    const edgekd_layer *layer;
    const int8_t *weights; /* (classes, inputs), each class's filled with zeros to a multiple of 4 */
    const int32_t *parameters; /* as a layer's */
    int8_t exponent;
    uint32_t progress, scratch; /* places in the memory */
    uint32_t memory_bytes;
} edgekd_network;

#define EDGEKD_LARGEST_KERNEL 16 /* rows */
#define EDGEKD_ONE 32768 /* what stands for 1 in scores */

/* Begin a window. */
void edgekd_network_start(const edgekd_network *network, void *memory);

/* Where the next row of the first map is to be written: columns * channels values. */
int8_t *edgekd_network_entry(const edgekd_network *network, void *memory);

/* The row is written: compute what follows from it. Returns 1 when that was the last row of the
 * window: then the scores can be had. */
int edgekd_network_step(const edgekd_network *network, void *memory);

/* The scores of a complete window, (classes,), in units of 1 / EDGEKD_ONE. */
void edgekd_network_scores(const edgekd_network *network, void *memory, int32_t *scores);

#ifdef __cplusplus
}
#endif

#endif
