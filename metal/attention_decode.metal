// q (B, HEADS, 64), k and v (B, HEADS / GROUP, S, 64), strided views of the cache -> out (B, HEADS, 64), or with
// SPLITS > 1 partial softmaxes (B, HEADS, SPLITS, 66) in float32. A threadgroup: a KV head, a sequence, a split.
#include "attention.h"
constexpr int TILE = 32 * SLICES, THREADS = TILE * GROUP;
threadgroup T tile[TILE * PITCH];
threadgroup float queries[GROUP * HEAD];
threadgroup float others[(SLICES > 1 ? SLICES - 1 : 1) * GROUP * PARTIAL];

uint index = thread_index_in_threadgroup, lane = thread_index_in_simdgroup;
uint local = simdgroup_index_in_threadgroup % GROUP, slice = simdgroup_index_in_threadgroup / GROUP;
uint split = threadgroup_position_in_grid.x, kv_head = threadgroup_position_in_grid.y;
uint b = threadgroup_position_in_grid.z, head = b * HEADS + kv_head * GROUP + local;
uint S = k_shape[2], tiles = (S + TILE - 1) / TILE, share = (tiles + SPLITS - 1) / SPLITS * TILE;
uint begin = split * share, end = min(S, begin + share);
const device T* keys = k + b * k_strides[0] + kv_head * k_strides[1];
const device T* values = v + b * v_strides[0] + kv_head * v_strides[1];

for (uint i = index; i < GROUP * HEAD; i += THREADS) {
  queries[i] = float(q[b * q_strides[0] + (kv_head * GROUP + i / HEAD) * q_strides[1] + i % HEAD]) * scale;
}
Softmax softmax = {NO_SCORE, 0.0f, float2(0.0f)};
for (uint first = begin; first < end; first += TILE) {
  uint position = first + slice * 32 + lane;
  load_tile<TILE>(keys, first, end, index, THREADS, tile);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float mine = score(tile + (slice * 32 + lane) * PITCH, queries + local * HEAD);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  load_tile<TILE>(values, first, end, index, THREADS, tile);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  add_slice(softmax, position < end ? mine : -INFINITY, tile + slice * 32 * PITCH, lane);
  threadgroup_barrier(mem_flags::mem_threadgroup);
}
if (slice > 0) write_partial(softmax, others + ((slice - 1) * GROUP + local) * PARTIAL, lane);
threadgroup_barrier(mem_flags::mem_threadgroup);
if (slice == 0) {
  for (uint s = 0; s + 1 < SLICES; s++) merge(softmax, read_partial(others + (s * GROUP + local) * PARTIAL, lane));
  if constexpr (SPLITS > 1) {  // else OUT is T, which may be bfloat
    write_partial(softmax, out + (head * SPLITS + split) * PARTIAL, lane);
  } else {
    float2 y = finish(softmax, float(sinks[kv_head * GROUP + local]));
    out[head * HEAD + 2 * lane] = OUT(y.x);
    out[head * HEAD + 2 * lane + 1] = OUT(y.y);
  }
}
