// The experts as matrix products, for many tokens: (token, expert) pairs sorted by expert, in tiles of ROWS pairs.
// Pointers to order and offsets are of any address space: MLX passes less than 8 elements in constant memory.
//
// A threadgroup of 4 simdgroups computes ROWS pairs x 64 outputs of one expert. In each of K / 64 steps, the
// threads decode the next 64 weights of the 64 matrix rows, one block of 32 each; the simdgroups multiply from
// threadgroup memory, simdgroup s the outputs 8 s .. 8 s + 7 of the first 32 and of the second 32 matrix rows.
#include "mxfp4.h"

constant constexpr int STEP = 64, WIDTH = 64, GEMM_PITCH = STEP + 4, GEMM_THREADS = 128;

// Which pairs of which expert a tile holds.
struct Tile {
  uint expert, first, end;
};

// offsets (E + 1,): where each expert's pairs begin. Tiles are counted expert by expert; none left: first == end.
template <int E, int ROWS, typename Offsets>
inline Tile find_tile(Offsets offsets, uint tile) {
  for (uint expert = 0; expert < E; expert++) {
    uint first = offsets[expert], end = offsets[expert + 1];
    uint tiles = (end - first + ROWS - 1) / ROWS;
    if (tile < tiles) return Tile{expert, first + tile * ROWS, min(end, first + (tile + 1) * ROWS)};
    tile -= tiles;
  }
  return Tile{0, 0, 0};
}

// 64 columns of ROWS rows of x (.., K), those of the pairs first .. end - 1, into a tile; zeros after `end`.
// The row of pair p is row p / SHARED of x.
template <int ROWS, int K, int SHARED, typename T, typename Order>
inline void load_rows(const device T* x, Order order, Tile tile, uint column, uint index, threadgroup T* rows) {
  for (uint i = index; i < ROWS * STEP / 4; i += GEMM_THREADS) {
    uint row = i / (STEP / 4), at = i % (STEP / 4) * 4;
    vec<T, 4> four = vec<T, 4>(T(0));
    if (tile.first + row < tile.end) {
      four = *(const device vec<T, 4>*)(x + order[tile.first + row] / SHARED * K + column + at);
    }
    for (int j = 0; j < 4; j++) rows[row * GEMM_PITCH + at + j] = four[j];
  }
}

// One block of 32 weights, decoded, into 32 places of a tile.
template <typename T>
inline void decode_block(uint4 words, uint8_t scale, threadgroup T* out) {
  float factor = mxfp4_scale(scale);
  for (int i = 0; i < 4; i++) {
    float2 a = mxfp4_pair<0>(words[i]), b = mxfp4_pair<1>(words[i]);
    float2 c = mxfp4_pair<2>(words[i]), d = mxfp4_pair<3>(words[i]);
    float low[4] = {a.x, b.x, c.x, d.x}, high[4] = {a.y, b.y, c.y, d.y};
    for (int j = 0; j < 4; j++) {
      out[8 * i + j] = T(low[j] * factor);
      out[8 * i + 4 + j] = T(high[j] * factor);
    }
  }
}

// products (ROWS, WIDTH) = the tile's rows of x times 32 rows of `first` and 32 of `second`, transposed.
// rows and weights are scratch: ROWS * GEMM_PITCH and WIDTH * GEMM_PITCH elements; products may lie over weights.
template <int ROWS, int K, int SHARED, typename T, typename Order>
inline void gemm_tile(const device T* x, Order order, Tile tile, Mxfp4<K> first, Mxfp4<K> second, uint index,
                      uint simdgroup, threadgroup T* rows, threadgroup T* weights,
                      threadgroup float* products) {
  constexpr int N = ROWS / 8;
  simdgroup_matrix<float, 8, 8> sums[2][N];
  for (int m = 0; m < 2; m++) {
    for (int i = 0; i < N; i++) sums[m][i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  uint row = index / 2, block = index % 2;
  for (uint column = 0; column < K; column += STEP) {
    uint at = row % 32 * (K / 32) + column / 32 + block;
    uint4 words = row < 32 ? first.blocks[at] : second.blocks[at];
    uint8_t scale = row < 32 ? first.scales[at] : second.scales[at];
    decode_block(words, scale, weights + row * GEMM_PITCH + 32 * block);
    load_rows<ROWS, K, SHARED>(x, order, tile, column, index, rows);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k = 0; k < STEP; k += 8) {
      simdgroup_matrix<T, 8, 8> w[2], r;
      for (int m = 0; m < 2; m++) {
        const threadgroup T* mine = weights + (32 * m + 8 * simdgroup) * GEMM_PITCH + k;
        simdgroup_load(w[m], mine, GEMM_PITCH, ulong2(0, 0), true);
      }
      for (int i = 0; i < N; i++) {
        simdgroup_load(r, rows + 8 * i * GEMM_PITCH + k, GEMM_PITCH);
        for (int m = 0; m < 2; m++) simdgroup_multiply_accumulate(sums[m][i], r, w[m], sums[m][i]);
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int m = 0; m < 2; m++) {
    for (int i = 0; i < N; i++) {
      simdgroup_store(sums[m][i], products + 8 * i * WIDTH + 32 * m + 8 * simdgroup, WIDTH);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}
