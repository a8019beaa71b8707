// y (P, K), order (P,) of the pairs by expert, offsets (E + 1,) in it, scores (P,), w MXFP4 (E, H, K)
// -> out (P, H) = score * (w @ y + bias) in float32. A threadgroup: ROWS pairs of an expert, 64 rows of its w.
#include "moe_gemm.h"
threadgroup T rows[ROWS * GEMM_PITCH];
threadgroup float products[WIDTH * GEMM_PITCH * sizeof(T) / 4];  // when all is multiplied; before, weights
threadgroup T* weights = (threadgroup T*)products;
uint index = thread_index_in_threadgroup, n = threadgroup_position_in_grid.x * WIDTH;
Tile tile = find_tile<E, ROWS>(offsets, threadgroup_position_in_grid.y);
if (tile.first == tile.end) return;
uint first = tile.expert * H + n;
gemm_tile<ROWS, K, 1>(y, order, tile, Mxfp4<K>(w, w_scales, first), Mxfp4<K>(w, w_scales, first + 32), index,
                      simdgroup_index_in_threadgroup, rows, weights, products);
for (uint i = index; i < (tile.end - tile.first) * WIDTH; i += GEMM_THREADS) {
  uint row = i / WIDTH, j = i % WIDTH, pair = order[tile.first + row];
  out[pair * H + n + j] = scores[pair] * (products[i] + float(bias[first + j]));
}
