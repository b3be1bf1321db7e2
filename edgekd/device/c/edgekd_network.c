#include "edgekd_network.h"

#include <string.h>

#include "edgekd_exp.h"
#include "edgekd_kernels.h"

/* What has been made so far: rows of each map (of a map in parts, parts), then rows that each layer has done, and those
 * of its source that it waits for. */
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

int8_t *edgekd_network_entry(const edgekd_network *network, void *memory) {
    const edgekd_map *map = &network->map[0];
    return row_at(map, memory, rows_written(network, memory)[0]) + map->left * map->channels;
}

static int layer_rows(const edgekd_network *network, const edgekd_layer *layer) {
    return network->map[layer->kind == EDGEKD_MEANS ? layer->source : layer->target].rows;
}

/* The rows, or parts of rows, of its source that a layer needs for its row number `row`. */
static uint16_t awaited(const edgekd_network *network, const edgekd_layer *layer, int row) {
    const edgekd_map *source = &network->map[layer->source];
    int needed = row + 1;
    if (row >= layer_rows(network, layer)) return UINT16_MAX; /* it has done all */
    if (layer->kind != EDGEKD_MEANS) {
        needed = row * layer->stride_rows - layer->top + layer->kernel_rows;
        if (needed > source->rows) needed = source->rows;
    }
    return (uint16_t)(needed * source->parts);
}

void edgekd_network_start(const edgekd_network *network, void *memory) {
    memset(memory, 0, network->memory_bytes);
    for (int i = 0; i < network->maps; i++) {
        const edgekd_map *map = &network->map[i];
        if (map->beyond)
            for (int row = 0; row < map->ring; row++) memcpy(row_at(map, memory, row), map->beyond, row_length(map));
    }
    for (int i = 0; i < network->layers; i++)
        rows_awaited(network, memory)[i] = awaited(network, &network->layer[i], 0);
}

static void max_pool_row(const edgekd_layer *layer, const edgekd_map *target, const int8_t *const *rows, int8_t *out) {
    int channels = target->channels;
    for (int x = 0; x < target->columns; x++) {
        for (int c = 0; c < channels; c++, out++) {
            int8_t largest = INT8_MIN;
            for (int ky = 0; ky < layer->kernel_rows; ky++) {
                const int8_t *value = rows[ky] + x * layer->stride_columns * channels + c;
                for (int kx = 0; kx < layer->kernel_columns; kx++, value += channels)
                    if (*value > largest) largest = *value;
            }
            *out = largest;
        }
    }
}

static void window_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const int8_t *rows[EDGEKD_LARGEST_KERNEL];
    int8_t *out = row_at(target, memory, row) + target->left * target->channels;
    int first = row * layer->stride_rows - layer->top, skipped = (source->left - layer->left) * source->channels;
    for (int ky = 0; ky < layer->kernel_rows; ky++) {
        int y = first + ky;
        rows[ky] = (y < 0 || y >= source->rows ? source->beyond : row_at(source, memory, y)) + skipped;
    }
    if (layer->kind == EDGEKD_CONVOLUTION)
        edgekd_convolve(layer, rows, source->channels, target->columns, target->channels, target->zero_point,
                        (uint8_t *)memory + network->scratch, out);
    else if (layer->kind == EDGEKD_DEPTHWISE)
        edgekd_convolve_depthwise(layer, rows, target->columns, target->channels, target->zero_point, out);
    else
        max_pool_row(layer, target, rows, out);
}

static void add_values(const edgekd_layer *layer, const int8_t *value, int channels, int32_t *sums) {
    if (!layer->table) {
        for (int c = 0; c < channels; c++) sums[c] += value[c];
        return;
    }
    for (int c = 0; c < channels; c++, sums += layer->bins) {
        const uint16_t *told = layer->table + ((layer->shared ? 0 : c * 256) + value[c] + 128) * layer->bins;
        for (int k = 0; k < layer->bins; k++) sums[k] += told[k];
    }
}

/* The sums lie by cells, channels, bins; the means by channels, bins, cells. */
static void means_row(const edgekd_network *network, const edgekd_layer *layer, void *memory, int row) {
    const edgekd_map *source = &network->map[layer->source], *target = &network->map[layer->target];
    const int8_t *values = row_at(source, memory, row) + source->left * source->channels;
    int32_t *sums = (int32_t *)(void *)((uint8_t *)memory + layer->place);
    const edgekd_rounding by = edgekd_rounding_of(layer->exponent, target->zero_point, INT8_MIN, INT8_MAX);
    const int32_t *parameters = layer->parameters;
    int each = source->channels * layer->bins, cells = layer->row_cells * layer->column_cells;
    int8_t *out = row_at(target, memory, 0) + target->left * target->channels + layer->start;
    for (int cy = 0; cy < layer->row_cells; cy++) {
        if (row < layer->row_edges[2 * cy] || row >= layer->row_edges[2 * cy + 1]) continue;
        for (int cx = 0; cx < layer->column_cells; cx++)
            for (int x = layer->column_edges[2 * cx]; x < layer->column_edges[2 * cx + 1]; x++)
                add_values(layer, values + x * source->channels, source->channels,
                           sums + (cy * layer->column_cells + cx) * each);
    }
    if (row + 1 < source->rows) return;
    for (int c = 0, i = 0; c < source->channels; c++, parameters += 2)
        for (int k = 0; k < layer->bins; k++, i++)
            for (int cell = 0; cell < cells; cell++)
                *out++ = edgekd_rounded(sums[cell * each + i] + parameters[0], parameters[1], &by);
}

#ifndef EDGEKD_LAYER_BEGINS /* what counts the work of each layer may stand here */
#define EDGEKD_LAYER_BEGINS(number)
#define EDGEKD_LAYER_ENDS(number)
#endif

int edgekd_network_step(const edgekd_network *network, void *memory) {
    uint16_t *written = rows_written(network, memory), *done = rows_done(network, memory);
    uint16_t *waits = rows_awaited(network, memory);
    int whole;
    written[0]++;
    for (int i = 0; i < network->layers; i++) { /* what a layer reads was written by one before it */
        const edgekd_layer *layer = &network->layer[i];
        while (written[layer->source] >= waits[i]) {
            EDGEKD_LAYER_BEGINS(i);
            if (layer->kind == EDGEKD_MEANS)
                means_row(network, layer, memory, done[i]);
            else
                window_row(network, layer, memory, done[i]);
            EDGEKD_LAYER_ENDS(i);
            done[i]++;
            waits[i] = awaited(network, layer, done[i]);
            if (layer->kind != EDGEKD_MEANS || done[i] == layer_rows(network, layer)) written[layer->target]++;
        }
    }
    whole = written[0] == network->map[0].rows;
    for (int i = 0; i < network->layers; i++) whole &= waits[i] == UINT16_MAX;
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
    const int8_t *values = row_at(source, memory, 0) + source->left * source->channels, *weight = network->weights;
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
