// The TOP largest of E logits and the softmax over them, by one simdgroup; of equal ones the first.
// logits is a pointer of any address space: MLX passes less than 8 elements in constant memory.
template <int E, int TOP, typename Logits>
inline void router_topk(Logits logits, device uint32_t* ids, device float* scores, uint lane) {
  constexpr int N = (E + 31) / 32;  // logits of a lane: lane, lane + 32, ...
  float mine[N], best[TOP];
  for (int i = 0; i < N; i++) mine[i] = lane + 32 * i < E ? float(logits[lane + 32 * i]) : -INFINITY;
  uint chosen[TOP];
  for (int k = 0; k < TOP; k++) {
    float top = -INFINITY;
    for (int i = 0; i < N; i++) top = max(top, mine[i]);
    best[k] = simd_max(top);
    uint at = E - 1;  // where a logit is NaN, still an expert
    for (int i = N - 1; i >= 0; i--) {
      if (mine[i] == best[k] && lane + 32 * i < E) at = lane + 32 * i;
    }
    chosen[k] = simd_min(at);
    for (int i = 0; i < N; i++) {
      if (lane + 32 * i == chosen[k]) mine[i] = -INFINITY;
    }
  }
  float sum = 0;
  for (int k = 0; k < TOP; k++) sum += exp(best[k] - best[0]);
  for (int k = 0; k < TOP; k++) {
    if (lane == 0) ids[k] = chosen[k], scores[k] = exp(best[k] - best[0]) / sum;
  }
}
