// Attention of one new token: the GROUP query heads that share a KV head read its keys and values once.
//
// A threadgroup has SLICES * GROUP simdgroups: simdgroup s works for head s % GROUP on slice s / GROUP (32 positions)
// of each tile. Tiles of 32 * SLICES positions pass through threadgroup memory, keys first, then values. For scores a
// lane is a position; for the weighted sum of values a lane is two of the D = 64 dimensions.

// A softmax under way (Milakov and Gimelshein, arXiv 1805.02867): maximum, sum, weighted sum of two dimensions.
struct Softmax {
  float max, sum;
  float2 out;

  void scale_to(float new_max) thread {
    float factor = exp(max - new_max);
    max = new_max;
    sum *= factor;
    out *= factor;
  }
};

constant constexpr float NO_SCORE = -1e30f;  // finite, so that the difference of two of them is a number
constant constexpr int HEAD = 64, PITCH = HEAD + 4;  // a tile's row is padded against bank conflicts

// Rows first .. first + ROWS - 1 of (end, D) into a tile; zeros from `end` on. All threads of the threadgroup.
template <int ROWS, typename T>
inline void load_tile(const device T* rows, uint first, uint end, uint thread_index, uint threads,
                      threadgroup T* tile) {
  for (uint i = thread_index; i < ROWS * HEAD / 4; i += threads) {
    uint row = i / (HEAD / 4), at = i % (HEAD / 4) * 4;
    vec<T, 4> four = vec<T, 4>(T(0));
    if (first + row < end) four = *(const device vec<T, 4>*)(rows + (first + row) * HEAD + at);
    for (int j = 0; j < 4; j++) tile[row * PITCH + at + j] = four[j];
  }
}

// The lane's position: its key times the query.
template <typename T>
inline float score(const threadgroup T* key, const threadgroup float* query) {
  float sum = 0;
  for (int i = 0; i < HEAD; i++) sum = fma(float(key[i]), query[i], sum);
  return sum;
}

// The 32 positions of a slice into the softmax; `mine` is the score of the lane's position.
template <typename T>
inline void add_slice(thread Softmax& softmax, float mine, const threadgroup T* values, uint lane) {
  softmax.scale_to(max(softmax.max, simd_max(mine)));
  float weight = exp(mine - softmax.max);
  softmax.sum += simd_sum(weight);
  for (ushort i = 0; i < 32; i++) {
    const threadgroup T* value = values + i * PITCH + 2 * lane;
    softmax.out += simd_shuffle(weight, i) * float2(float(value[0]), float(value[1]));
  }
}

// Two softmaxes over different positions become one.
inline void merge(thread Softmax& softmax, Softmax other) {
  float both = max(softmax.max, other.max);
  softmax.scale_to(both);
  other.scale_to(both);
  softmax.sum += other.sum;
  softmax.out += other.out;
}

// The weighted mean; the head's sink takes part of the weight and adds nothing.
inline float2 finish(Softmax softmax, float sink) {
  softmax.scale_to(max(softmax.max, sink));
  return softmax.out / (softmax.sum + exp(sink - softmax.max));
}

// A partial softmax in memory: D sums, then maximum and sum.
constant constexpr int PARTIAL = HEAD + 2;

template <typename P>
inline Softmax read_partial(const P partial, uint lane) {
  return Softmax{partial[HEAD], partial[HEAD + 1], float2(partial[2 * lane], partial[2 * lane + 1])};
}

template <typename P>
inline void write_partial(Softmax softmax, P partial, uint lane) {
  partial[2 * lane] = softmax.out.x;
  partial[2 * lane + 1] = softmax.out.y;
  if (lane == 0) partial[HEAD] = softmax.max, partial[HEAD + 1] = softmax.sum;
}
