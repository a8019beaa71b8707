// logits (M, E) -> ids (M, TOP), scores (M, TOP) in float32: a simdgroup a token.
#include "router_topk.h"
uint token = threadgroup_position_in_grid.x;
router_topk<E, TOP>(logits + token * E, ids + token * TOP, scores + token * TOP, thread_index_in_simdgroup);
