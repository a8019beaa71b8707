// x (M, K), order (P,) of the P = M * TOP pairs by expert, offsets (E + 1,) in it, gate and up MXFP4 (E, I, K)
// -> y (P, I). A threadgroup: ROWS pairs of an expert, 32 rows of its gate and the same of its up.
#include "moe_gemm.h"
#include "swiglu.h"
threadgroup T rows[ROWS * GEMM_PITCH];
threadgroup float products[WIDTH * GEMM_PITCH * sizeof(T) / 4];  // when all is multiplied; before, weights
threadgroup T* weights = (threadgroup T*)products;
uint index = thread_index_in_threadgroup, n = threadgroup_position_in_grid.x * 32;
Tile tile = find_tile<E, ROWS>(offsets, threadgroup_position_in_grid.y);
if (tile.first == tile.end) return;
uint first = tile.expert * I + n;
gemm_tile<ROWS, K, TOP>(x, order, tile, Mxfp4<K>(gate, gate_scales, first), Mxfp4<K>(up, up_scales, first), index,
                        simdgroup_index_in_threadgroup, rows, weights, products);
for (uint i = index; i < (tile.end - tile.first) * 32; i += GEMM_THREADS) {
  uint row = i / 32, j = i % 32;
  float g = products[row * WIDTH + j] + float(gate_bias[first + j]);
  float u = products[row * WIDTH + 32 + j] + float(up_bias[first + j]);
  y[order[tile.first + row] * I + n + j] = T(swiglu(g, u, limit));
}
