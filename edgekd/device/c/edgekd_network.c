#include "edgekd_network.h"

#include <string.h>

#include "edgekd_exp.h"
#include "edgekd_kernels.h"

/* What has been made so far: rows of each map, then rows that each layer has done, and those of its sources that it waits
 * for. */
static uint16_t *rows_written(const edgekd_network *network, void *memory) {
    return (uint16_t *)(void *)((uint8_t *)memory + network->progress);
}

static uint16_t *rows_done(const edgekd_network *network, void *memory) {
    return rows_written(network, memory) + network->maps;
}

static uint16_t *rows_awaited(const edgekd_network *network, void *memory) {
    return rows_done(network, memory) + network->layers;
}

static int row_length(const edgekd_map *map) { return (map->left + map->columns + map->right) * map->channels; }

static int8_t *row_at(const edgekd_map *map, void *memory, int row) {
    return (int8_t *)memory + map->place + (row % map->ring) * row_length(map);
}

static int8_t *values_at(const edgekd_map *map, void *memory, int row) {
    return row_at(map, memory, row) + map->left * map->channels;
}

int8_t *edgekd_network_entry(const edgekd_network *network, void *memory) {
    return values_at(&network->map[0], memory, rows_written(network, memory)[0]);
}

/* Whether a layer gives one vector when it has seen all rows. */
static int sums_up(const edgekd_layer *layer) {
    return layer->kind >= EDGEKD_MEANS && layer->kind <= EDGEKD_DEVIATIONS;
}

static int layer_rows(const edgekd_network *network, const edgekd_layer *layer) {
    return network->map[sums_up(layer) ? layer->source : layer->target].rows;
}

/* The rows of its source that a layer needs for its row number `row`. */
static uint16_t awaited(const edgekd_network *network, const edgekd_layer *layer, int row) {
    const edgekd_map *source = &network->map[layer->source];
    int needed = row + 1;
    if (row >= layer_rows(network, layer)) return UINT16_MAX; /* it has done all */
    if (layer->kind <= EDGEKD_MAX_POOL) {
        needed = row * layer->stride_rows - layer->top + layer->kernel_rows;
        if (needed > source->rows) needed = source->rows;
    }
    return (uint16_t)needed;
}

/* Whether the second source has what it takes beside so many rows of the first: as many, or the one that it has. */
static int other_is_there(const edgekd_network *network, const edgekd_layer *layer, const uint16_t *written, int rows) {
    if (layer->kind < EDGEKD_ADD) return 1;
    return written[layer->other] >= (network->map[layer->other].rows == 1 ? 1 : rows);
}

/* The rows of a map that all layers have written that write a part of it. */
static uint16_t whole_rows(const edgekd_network *network, void *memory, int target) {
    const uint16_t *done = rows_done(network, memory);
    int least = UINT16_MAX;
    for (int i = 0; i < network->layers; i++) {
        const edgekd_layer *layer = &network->layer[i];
        int given = sums_up(layer) ? done[i] == layer_rows(network, layer) : done[i];
        if (layer->target == target && given < least) least = given;
    }
    return (uint16_t)least;
}

/* The values of a map are written before they are read; what is not: padding at the sides of its rows, and sums. */
void edgekd_network_start(const edgekd_network *network, void *memory) {
    uint32_t begin = 0;
    for (int i = 0; i < network->maps; i++) {
        const edgekd_map *map = &network->map[i];
        int left = map->left * map->channels, right = map->right * map->channels;
        for (int row = 0; row < map->ring && left + right; row++) {
            int8_t *values = row_at(map, memory, row);
            memset(values, map->zero_point, (size_t)left);
            memset(values + left + map->columns * map->channels, map->zero_point, (size_t)right);
        }
        begin = map->place + (uint32_t)(map->ring * row_length(map));
    }
    memset((uint8_t *)memory + begin, 0, network->scratch - begin);
    for (int i = 0; i < network->layers; i++)
        rows_awaited(network, memory)[i] = awaited(network, &network->layer[i], 0);
}

static APART void window_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const int8_t *rows[EDGEKD_LARGEST_KERNEL];
    int8_t *out = values_at(target, memory, row);
    int y = row * layer->stride_rows - layer->top, skipped = (source->left - layer->left) * source->channels;
    int length = row_length(source), kept = y < 0 ? 0 : y % source->ring;
    const int8_t *ring = (const int8_t *)memory + source->place + skipped;
    for (int ky = 0; ky < layer->kernel_rows; ky++, y++) {
        if (y < 0 || y >= source->rows) {
            rows[ky] = source->beyond + skipped;
        } else {
            rows[ky] = ring + kept * length;
            if (++kept == source->ring) kept = 0;
        }
    }
    if (layer->kind == EDGEKD_CONVOLUTION)
        edgekd_convolve(layer, rows, source->channels, target->columns, target->channels, target->zero_point,
                        (uint8_t *)memory + network->scratch, out);
    else if (layer->kind == EDGEKD_DEPTHWISE)
        edgekd_convolve_depthwise(layer, rows, target->columns, target->channels, target->zero_point, out);
    else
        edgekd_max_pool(layer, rows, target->columns, target->channels, out);
}

/* The sums lie by cells, channels, bins; the means by channels, bins, cells. */
static APART void means_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const int8_t *values = values_at(source, memory, row);
    uint32_t *sums = (uint32_t *)(void *)((uint8_t *)memory + layer->place);
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, target->zero_point, INT8_MIN, INT8_MAX);
    const int32_t *parameters = layer->parameters;
    int32_t doubled = 1 << layer->doublings;
    int each = source->channels * layer->bins, cells = layer->row_cells * layer->column_cells;
    int32_t begin = 0; /* of a sum: less what was added to values */
    int8_t *out = values_at(target, memory, 0) + layer->start;
    for (int cy = 0; cy < layer->row_cells; cy++) {
        if (row < layer->row_edges[2 * cy] || row >= layer->row_edges[2 * cy + 1]) continue;
        for (int cx = 0; cx < layer->column_cells; cx++) {
            int x = layer->column_edges[2 * cx], end = layer->column_edges[2 * cx + 1];
            uint32_t *into = sums + (cy * layer->column_cells + cx) * each;
            int some = layer->table ? 1 : EDGEKD_MOST_COLUMNS;
            for (; x < end; x += some) {
                const int8_t *value = values + x * source->channels;
                if (layer->table)
                    edgekd_add_told(layer, value, source->channels, into);
                else
                    edgekd_add_values(value, source->channels, end - x < some ? end - x : some, into);
            }
        }
    }
    if (row + 1 < source->rows) return;
    if (!layer->table)
        begin = -128 * (layer->row_edges[1] - layer->row_edges[0]) * (layer->column_edges[1] - layer->column_edges[0]);
    for (int c = 0, i = 0; c < source->channels; c++, parameters += 2)
        for (int k = 0; k < layer->bins; k++, i++)
            for (int cell = 0; cell < cells; cell++)
                *out++ = edgekd_rounded(((int32_t)sums[cell * each + i] + begin) * doubled + parameters[0], parameters[1],
                                        &by);
}

static uint32_t root_of(uint64_t square) {
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit; bit >>= 2) {
        uint64_t tried = root + bit;
        root >>= 1;
        if (square < tried) continue;
        square -= tried;
        root += bit;
    }
    return (uint32_t)root;
}

/* Of four pairs of bytes from 0 to 255 the larger of each. */
static uint32_t larger_four(uint32_t a, uint32_t b) {
    const uint32_t highest = 0x80808080;
    uint32_t apart = a ^ b, below = (a | highest) - (b & ~highest); /* no byte borrows from the next */
    uint32_t not_less = ((a & apart) | (below & ~apart)) & highest;
    return b ^ (apart & ((not_less << 1) - (not_less >> 7)));
}

/* The largest value of each channel in a row and before, each 128 more than it is, for all begins at 0. */
static APART void keep_largest(const int8_t *value, int channels, int columns, uint8_t *kept) {
    const int8_t *end = value + channels, *last = edgekd_has_words(value, channels) ? value + (channels & ~3) : value;
    int length = columns * channels;
    for (; value != last; value += 4, kept += 4) {
        const int8_t *column = value, *end_of_columns = value + length;
        uint32_t largest;
        memcpy(&largest, kept, sizeof largest);
        do {
            largest = larger_four(edgekd_word_at(column) ^ 0x80808080, largest);
            column += channels;
        } while (column != end_of_columns);
        memcpy(kept, &largest, sizeof largest);
    }
    for (; value != end; value++, kept++)
        for (int at = 0; at < length; at += channels)
            if (value[at] + 128 > *kept) *kept = (uint8_t)(value[at] + 128);
}

static APART void maxima_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    uint8_t *kept = (uint8_t *)memory + layer->place;
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, target->zero_point, INT8_MIN, INT8_MAX);
    const int32_t *parameters = layer->parameters;
    int8_t *out = values_at(target, memory, 0) + layer->start;
    keep_largest(values_at(source, memory, row), source->channels, source->columns, kept);
    if (row + 1 < source->rows) return;
    for (int c = 0; c < source->channels; c++, parameters += 2)
        out[c] = edgekd_rounded((kept[c] - 128) * (1 << layer->doublings) + parameters[0], parameters[1], &by);
}

/* Kept of each channel: the sum of all values and that of the squares of the rows' sums, in two words, for memory is
 * aligned to words of 32 bits. */
static APART void deviations_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const int8_t *values = values_at(source, memory, row);
    uint32_t *kept = (uint32_t *)(void *)((uint8_t *)memory + layer->place);
    uint32_t *sums = (uint32_t *)(void *)((uint8_t *)memory + network->scratch);
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, target->zero_point, INT8_MIN, INT8_MAX);
    const int32_t *parameters = layer->parameters;
    int8_t *out = values_at(target, memory, 0) + layer->start;
    int channels = source->channels, left = source->columns;
    memset(sums, 0, (size_t)channels * sizeof *sums);
    for (int some; left > 0; left -= some, values += some * channels) {
        some = left < EDGEKD_MOST_COLUMNS ? left : EDGEKD_MOST_COLUMNS;
        edgekd_add_values(values, channels, some, sums);
    }
    for (int c = 0; c < channels; c++, parameters += 2, kept += 3) {
        int64_t sum = (int32_t)sums[c] - 128 * source->columns, all = (int32_t)kept[0] + sum;
        uint64_t squares = ((uint64_t)kept[2] << 32 | kept[1]) + (uint64_t)(sum * sum);
        uint32_t root;
        kept[0] = (uint32_t)all, kept[1] = (uint32_t)squares, kept[2] = (uint32_t)(squares >> 32);
        if (row + 1 < source->rows) continue;
        root = root_of((source->rows * squares - (uint64_t)(all * all)) << 2 * layer->doublings);
        if (root < layer->least) root = layer->least;
        out[c] = edgekd_rounded((int32_t)root + parameters[0], parameters[1], &by);
    }
}

/* A table of each value, or a sum or product of two. */
static APART void pointwise_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const edgekd_map *second = &network->map[layer->other];
    const int8_t *a = values_at(source, memory, row), *b = values_at(second, memory, second->rows > 1 ? row : 0);
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, target->zero_point, layer->low, layer->high);
    const int32_t *parameters = layer->parameters;
    int8_t *out = values_at(target, memory, row) + layer->start;
    int channels = source->channels, back = second->columns == 1 ? channels : 0;
    for (int x = 0; x < source->columns; x++, a += channels, out += target->channels) {
        if (layer->kind == EDGEKD_LOOK_UP) {
            const int8_t *table = layer->weights + 128;
            for (int c = 0; c < channels; c++, table += layer->shared ? 0 : 256) out[c] = table[a[c]];
            continue;
        }
        if (layer->kind == EDGEKD_ADD) {
            for (int c = 0; c < channels; c++) {
                int32_t sum = (parameters[0] + a[c] * parameters[1] + b[c] * parameters[2]) >> layer->exponent;
                out[c] = (int8_t)(sum < layer->low ? layer->low : sum > layer->high ? layer->high : sum);
            }
        } else {
            const uint16_t *table = layer->table + 128, *others = table + 256;
            for (int c = 0; c < channels; c++)
                out[c] = edgekd_rounded((int16_t)table[a[c]] * (int16_t)others[b[c]], parameters[1], &by);
        }
        b += channels - back;
    }
}

#ifndef EDGEKD_LAYER_BEGINS /* what counts the work of each layer may stand here */
#define EDGEKD_LAYER_BEGINS(number)
#define EDGEKD_LAYER_ENDS(number)
#endif

/* Makes all rows of a layer that can be made. Returns the last map that has got a row: its target, or `latest`. */
static APART int follow(const edgekd_network *network, const edgekd_layer *layer, void *memory, int number, int latest) {
    uint16_t *written = rows_written(network, memory), *done = rows_done(network, memory) + number;
    uint16_t *waits = rows_awaited(network, memory) + number;
    while (written[layer->source] >= *waits && other_is_there(network, layer, written, *waits)) {
        EDGEKD_LAYER_BEGINS(number);
        if (layer->kind <= EDGEKD_MAX_POOL)
            window_row(network, layer, memory, *done);
        else if (layer->kind == EDGEKD_MEANS)
            means_row(network, layer, memory, *done);
        else if (layer->kind == EDGEKD_MAXIMA)
            maxima_row(network, layer, memory, *done);
        else if (layer->kind == EDGEKD_DEVIATIONS)
            deviations_row(network, layer, memory, *done);
        else
            pointwise_row(network, layer, memory, *done);
        EDGEKD_LAYER_ENDS(number);
        *waits = awaited(network, layer, ++*done);
        if (sums_up(layer) && *waits != UINT16_MAX) continue;
        if (layer->target > latest) latest = layer->target;
        if (network->map[layer->target].parts == 1)
            written[layer->target]++;
        else
            written[layer->target] = whole_rows(network, memory, layer->target);
    }
    return latest;
}

int edgekd_network_step(const edgekd_network *network, void *memory) {
    uint16_t rows = ++*rows_written(network, memory);
    int number = 0, latest = 0, whole = 1;
    for (const edgekd_layer *layer = network->layer, *end = layer + network->layers; layer != end; layer++, number++) {
        if (layer->source > latest && (layer->kind < EDGEKD_ADD || layer->other > latest)) continue; /* nothing new */
        latest = follow(network, layer, memory, number, latest); /* what a layer reads was written by one before it */
    }
    if (rows < network->map[0].rows) return 0;
    for (int i = 0; i < network->layers; i++) whole &= rows_awaited(network, memory)[i] == UINT16_MAX;
    return whole;
}

/* exp(-d), d in units of 2^-12, in units of 2^-30: the product of three tables, of whole units, of 64ths, of the rest. */
static uint32_t decayed(uint32_t below) {
    static const uint32_t whole[16] = {EDGEKD_EXP_WHOLE}, parts[64] = {EDGEKD_EXP_PARTS}, rest[64] = {EDGEKD_EXP_REST};
    uint64_t share;
    if (below >= 16u << 12) return 0;
    share = ((uint64_t)whole[below >> 12] * parts[(below >> 6) & 63]) >> 30;
    return (uint32_t)((share * rest[below & 63]) >> 30);
}

static int32_t share_of(uint32_t part, uint64_t total) {
    return (int32_t)(((uint64_t)part * EDGEKD_ONE + total / 2) / total);
}

static int32_t sigmoid(int32_t logit) {
    uint32_t one = 1u << 30, rest = decayed(logit < 0 ? 0u - (uint32_t)logit : (uint32_t)logit);
    return share_of(logit < 0 ? rest : one, (uint64_t)one + rest);
}

void edgekd_network_scores(const edgekd_network *network, void *memory, int32_t *scores) {
    const edgekd_map *source = &network->map[network->source];
    const edgekd_rounding by = edgekd_rounding_of(network->exponent, 0, 0, 0);
    const int8_t *values = values_at(source, memory, 0), *weight = network->weights;
    int filled = EDGEKD_WORDS(source->channels) - source->channels;
    int32_t largest = INT32_MIN;
    uint64_t total = 0;
    for (int k = 0; k < network->classes; k++, weight += filled) {
        int32_t sum = network->parameters[2 * k];
        for (int i = 0; i < source->channels; i++) sum += *weight++ * values[i];
        scores[k] = edgekd_scaled(sum, network->parameters[2 * k + 1], &by);
        if (scores[k] > largest) largest = scores[k];
    }
    if (network->several) {
        for (int k = 0; k < network->classes; k++) scores[k] = sigmoid(scores[k]);
        return;
    }
    for (int k = 0; k < network->classes; k++) {
        scores[k] = (int32_t)decayed((uint32_t)largest - (uint32_t)scores[k]);
        total += (uint32_t)scores[k];
    }
    for (int k = 0; k < network->classes; k++)
        scores[k] = share_of((uint32_t)scores[k], total);
}
