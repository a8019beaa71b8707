// x (B, K), w bfloat16 ((HEADS + 2 * KV_HEADS) * 64, K), rotation (B, 64)
// -> q (B, HEADS, 64), k and v (B, KV_HEADS, 64).
#include "bf16.h"
#include "qkv.h"
uint part = threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup;
uint b = threadgroup_position_in_grid.y, lane = thread_index_in_simdgroup;
qkv<K, HEADS, KV_HEADS>(Bf16<K>(w), part, x + b * K, bias, rotation + b * 64,
                        q + b * HEADS * 64, k + b * KV_HEADS * 64, v + b * KV_HEADS * 64, lane);
