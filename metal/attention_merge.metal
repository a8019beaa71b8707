// partials (B, HEADS, SPLITS, 66) of attention_decode, sinks (HEADS,) -> out (B, HEADS, 64): a simdgroup a head.
#include "attention.h"
uint head = threadgroup_position_in_grid.x, lane = thread_index_in_simdgroup;
const device float* mine = partials + head * SPLITS * PARTIAL;
Softmax softmax = read_partial(mine, lane);
for (uint i = 1; i < SPLITS; i++) merge(softmax, read_partial(mine + i * PARTIAL, lane));
float2 y = finish(softmax, float(sinks[head % HEADS]));
out[head * HEAD + 2 * lane] = T(y.x);
out[head * HEAD + 2 * lane + 1] = T(y.y);
