// Fused DyT on the CPU: y = weight * f(alpha * x + shift) + bias, forward and backward in one pass each over the data.
//
// Only x is saved for backward; f is computed again there. Work is in float (double for double), whatever x holds.
// Vectors are ATen's, for the instruction set that dyt/kernels/native.py compiles for. All is viewed as (rows, cols):
// channels last, cols are channels and parameters vary along a row ("wide"); channels first, a row is one channel of one
// sample and parameters are constant along it ("tall").
// The same input gives the same bits at the same thread count: rows are shared out by position, sums added in order.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "squash.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

template <class Run> void with_squash(int64_t squash, Run run) {
  switch (squash) {
    case 0: return run(Tanh{});
    case 1: return run(HardTanh{});
    case 2: return run(Sigmoid{});
    case 3: return run(Erf{});
    case 4: return run(Isru{});
    case 5: return run(Identity{});
    default: TORCH_CHECK(false, "dyt: squash must be 0 to 5, got ", squash);
  }
}

// ------------------------------------------------------------------------------------------------- rows of any dtype

// A row as float or double: in place where it is that already, else converted into a buffer.
template <class S, class T> const T* read_row(const S* row, int64_t n, std::vector<T>& buffer) {
  if constexpr (std::is_same_v<S, T>) {
    return row;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<T>(row[i]);
    return buffer.data();
  }
}
template <class S, class T> T* row_to_write(S* row, std::vector<T>& buffer) {
  if constexpr (std::is_same_v<S, T>) return row;
  else return buffer.data();
}
template <class S, class T> void write_row(S* row, const T* from, int64_t n) {
  if constexpr (!std::is_same_v<S, T>)
    for (int64_t i = 0; i < n; ++i) row[i] = static_cast<S>(from[i]);
}

template <class S, class T> struct Buffers {
  std::vector<T> in, grad, out;
  explicit Buffers(int64_t size) : in(std::is_same_v<S, T> ? 0 : size), grad(in.size()), out(in.size()) {}
};

bool given(const OptTensor& p) { return p.has_value() && p->defined(); }

// A parameter as `size` values: the tensor's own memory where dtype and size fit, else a copy.
template <class T> struct Values {
  Tensor owner;
  std::vector<T> copy;
  const T* data = nullptr;

  Values(const OptTensor& p, T missing, int64_t size) {
    if (!given(p)) {
      copy.assign(size, missing);
      data = copy.data();
      return;
    }
    constexpr auto type = at::CppTypeToScalarType<T>::value;
    owner = p->scalar_type() == type && p->is_contiguous() ? *p : p->detach().to(type).contiguous();
    data = owner.const_data_ptr<T>();
    if (owner.numel() == size) return;
    TORCH_CHECK(owner.numel() == 1, "dyt: a parameter has ", owner.numel(), " values for ", size, " channels");
    copy.assign(size, data[0]);
    data = copy.data();
  }
};

// The shape of the work, and its parameters; alpha is one number unless alpha_each or channels come first.
template <class T> struct Work {
  bool wide, alpha_each, shifted;
  int64_t channels, cols, rows;
  Values<T> alpha, weight, bias, shift;

  Work(const Tensor& x, const OptTensor& a, const OptTensor& w, const OptTensor& b, const OptTensor& s, bool last)
      : wide(last),
        alpha_each(given(a) && a->numel() > 1),
        shifted(given(s)),
        channels(last ? x.size(-1) : x.size(1)),
        cols(last ? channels : (x.numel() ? x.numel() / (x.size(0) * channels) : 0)),
        rows(cols ? x.numel() / cols : 0),
        alpha(a, T(1), alpha_each || !last ? channels : 1),
        weight(w, T(1), channels),
        bias(b, T(0), channels),
        shift(s, T(0), 1) {}
};

// An output like x. Large ones come fresh from the system, and filling their pages one by one costs more than the work
// itself; Linux is asked for large pages, which it gives only where asked.
Tensor output_like(const Tensor& x) {
  Tensor y = at::detail::empty_cpu(x.sizes(), x.scalar_type());  // at::empty_like asks the dispatcher twice
#ifdef __linux__
  constexpr uintptr_t page = 4096;
  if (y.nbytes() >= (4u << 20)) {
    const auto start = (reinterpret_cast<uintptr_t>(y.data_ptr()) + page - 1) / page * page;
    const auto end = (reinterpret_cast<uintptr_t>(y.data_ptr()) + y.nbytes()) / page * page;
    madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // a hint: failing changes nothing
  }
#endif
  return y;
}

// x in the dtype that PyTorch's promotion gives with its parameters.
Tensor promoted(const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
                const OptTensor& shift) {
  auto type = x.scalar_type();
  for (const OptTensor* p : {&alpha, &weight, &bias, &shift})
    if (given(*p)) type = c10::promoteTypes(type, (*p)->scalar_type());
  return type == x.scalar_type() ? x : x.to(type);
}

void check(const Tensor& x, bool channels_last) {
  TORCH_CHECK(x.dim() >= (channels_last ? 1 : 2), "dyt: x of shape ", x.sizes(), " has no channel axis");
}

int64_t rows_at_once(int64_t cols) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols)); }

// ----------------------------------------------------------------------------------------------------------- forward

// Results this large go past the caches: a plain store would first read the line that it overwrites.
constexpr size_t STREAM_BYTES = 32u << 20;

INLINE void stream_to(float* p, at::vec::Vectorized<float> v) {
#if defined(CPU_CAPABILITY_AVX512)
  _mm512_stream_ps(p, v);
#elif defined(CPU_CAPABILITY_AVX2)
  _mm256_stream_ps(p, v);
#else
  v.store(p);
#endif
}
INLINE void stream_to(double* p, at::vec::Vectorized<double> v) { v.store(p); }

void end_of_stream() {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  _mm_sfence();
#endif
}

// Whether rows of a result may be streamed to: large, of the working type, every row on a vector's boundary.
template <class S, class T> bool streams(const S* to, int64_t rows, int64_t cols) {
  constexpr size_t width = sizeof(T) * at::vec::Vectorized<T>::size();
  return std::is_same_v<S, T> && rows * cols * sizeof(T) >= STREAM_BYTES &&
         reinterpret_cast<uintptr_t>(to) % width == 0 && cols * sizeof(T) % width == 0;
}

// How a body reads and writes: N vectors, one, or the start of one, whose missing lanes read as zero. `write` is for
// results, past the caches where the row is streamed to.
template <class T, int N> struct ByPack {
  using W = Pack<T, N>;
  bool streamed;
  static INLINE W load(const T* p) { return W::loadu(p); }
  static INLINE void store(T* p, const W& v) { v.store(p); }
  INLINE void write(T* p, const W& v) const {
    if (!streamed) return v.store(p);
    for (int k = 0; k < N; ++k) stream_to(p + k * at::vec::Vectorized<T>::size(), v.v[k]);
  }
  // Asks for what comes a page later: the processor's own prefetching ends at each page's end.
  INLINE void ahead(const T* from, const T* to) const {
    constexpr int64_t page = 4096, line = 64;
    for (int64_t at = page; at < page + static_cast<int64_t>(sizeof(T)) * W::size(); at += line) {
      __builtin_prefetch(reinterpret_cast<const char*>(from) + at);
      if (!streamed) __builtin_prefetch(reinterpret_cast<const char*>(to) + at, 1);
    }
  }
};
template <class T> struct ByOne {
  using W = at::vec::Vectorized<T>;
  int64_t count = W::size();
  INLINE W load(const T* p) const { return W::loadu(p, count); }
  INLINE void store(T* p, const W& v) const { v.store(p, static_cast<int>(count)); }
  INLINE void write(T* p, const W& v) const { store(p, v); }
  INLINE void ahead(const T*, const T*) const {}
};

// Runs body(i, io) over the n values of a row, N vectors at a time.
template <class T, int N, class Body> INLINE void along(int64_t n, bool streamed, Body body) {
  constexpr int64_t one = at::vec::Vectorized<T>::size();
  int64_t i = 0;
  for (; i + N * one <= n; i += N * one) body(i, ByPack<T, N>{streamed});
  for (; i < n; i += one) body(i, ByOne<T>{std::min(one, n - i)});
}

template <class F, class S, class T> void forward_rows(const Work<T>& w, const S* x, S* y) {
  using V = at::vec::Vectorized<T>;
  const bool streamed = streams<S, T>(y, w.rows, w.cols);
  at::parallel_for(0, w.rows, rows_at_once(w.cols), [&](int64_t from, int64_t to) {
    std::vector<T> in(std::is_same_v<S, T> ? 0 : w.cols), out(in.size());
    const T *alphas = w.alpha.data, *weight = w.weight.data, *bias = w.bias.data;
    const V shift(w.shift.data[0]);
    for (int64_t r = from; r < to; ++r) {
      const T* a = read_row<S, T>(x + r * w.cols, w.cols, in);
      T* b = row_to_write<S, T>(y + r * w.cols, out);
      const int64_t c = w.wide ? 0 : r % w.channels;
      const V alpha(alphas[c]), scale(weight[c]), add(bias[c]);
      if (w.wide && w.alpha_each) {
        along<T, 4>(w.cols, streamed, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          const W t = F::f(fmadd(io.load(alphas + i), io.load(a + i), W(shift)));
          io.write(b + i, fmadd(t, io.load(weight + i), io.load(bias + i)));
        });
      } else if (w.wide) {
        along<T, 4>(w.cols, streamed, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          io.ahead(a + i, b + i);
          const W t = F::f(fmadd(W(alpha), io.load(a + i), W(shift)));
          io.write(b + i, fmadd(t, io.load(weight + i), io.load(bias + i)));
        });
      } else {
        along<T, 4>(w.cols, streamed, [&](int64_t i, auto io) __attribute__((always_inline)) {
          using W = typename decltype(io)::W;
          io.write(b + i, fmadd(F::f(fmadd(W(alpha), io.load(a + i), W(shift))), W(scale), W(add)));
        });
      }
      write_row<S, T>(y + r * w.cols, b, w.cols);
    }
    if (streamed) end_of_stream();
  });
}

Tensor forward(const Tensor& x_in, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
               const OptTensor& shift, int64_t squash, bool channels_last) {
  check(x_in, channels_last);
  const Tensor x = promoted(x_in, alpha, weight, bias, shift).contiguous();
  Tensor y = output_like(x);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "dyt_forward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const Work<T> w(x, alpha, weight, bias, shift, channels_last);
    with_squash(squash, [&](auto f) {
      forward_rows<decltype(f), scalar_t, T>(w, x.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>());
    });
  });
  return y;
}

// ---------------------------------------------------------------------------------------------------------- backward

// Sums of one thread: of weight, of bias and, where it has one a channel, of alpha, by channel. Rows go into float sums,
// which go into double ones every few rows: 1e-5 of the largest gradient must hold for any number of rows. Aligned, or
// two threads would write to one line of the cache and wait for each other.
template <class T> struct alignas(128) Sums {
  double alpha = 0, shift = 0;
  int64_t channels, size;
  std::vector<T> recent;
  std::vector<double> whole;

  Sums(int64_t channels, bool alpha_each)
      : channels(channels), size(channels * (alpha_each ? 3 : 2)), recent(size + 32), whole(size + 16) {}

  T* weights() { return recent.data(); }
  T* biases() { return recent.data() + channels; }
  T* alphas() { return recent.data() + 2 * channels; }
  void flush() {
    for (int64_t i = 0; i < size; ++i) whole[i] += recent[i], recent[i] = 0;
  }
  void add(const Sums& other) {
    alpha += other.alpha, shift += other.shift;
    for (int64_t i = 0; i < size; ++i) whole[i] += other.whole[i];
  }
};

template <class T> T sum_of(at::vec::Vectorized<T> v) {
  return at::vec::vec_reduce_all<T>([](auto& a, auto& b) { return a + b; }, v);
}

// Rows that are worked on together: their columns' sums stay in registers.
constexpr int64_t TILE = 16;

// `count` rows of channels-last data from `r` on.
template <class F, class S, class T>
void backward_wide(const Work<T>& w, const S* x, const S* g, S* dx, int64_t r, int64_t count, bool streamed,
                   Buffers<S, T>& buffers, Sums<T>& s) {
  using V = at::vec::Vectorized<T>;
  const int64_t n = w.cols;
  const T* a = read_row<S, T>(x + r * n, count * n, buffers.in);
  const T* b = read_row<S, T>(g + r * n, count * n, buffers.grad);
  T* d = row_to_write<S, T>(dx + r * n, buffers.out);
  T *weights = s.weights(), *biases = s.biases(), *alphas = s.alphas();
  const V alpha(w.alpha.data[0]), shift(w.shift.data[0]);
  along<T, 2>(n, streamed, [&](int64_t i, auto io) __attribute__((always_inline)) {
    using W = typename decltype(io)::W;
    const W weight = io.load(w.weight.data + i), slope = w.alpha_each ? io.load(w.alpha.data + i) : W(alpha);
    W sum_weight(0), sum_bias(0), sum_alpha(0), sum_shift(0);
    for (int64_t at = i; at < count * n; at += n) {
      const W xi = io.load(a + at), gi = io.load(b + at);
      W t, df;
      value_and_slope<F>(fmadd(slope, xi, W(shift)), t, df);
      const W gz = gi * weight * df;
      io.write(d + at, gz * slope);
      sum_weight = fmadd(gi, t, sum_weight);
      sum_bias = sum_bias + gi;
      sum_alpha = fmadd(gz, xi, sum_alpha);
      sum_shift = sum_shift + gz;
    }
    io.store(weights + i, io.load(weights + i) + sum_weight);
    io.store(biases + i, io.load(biases + i) + sum_bias);
    if (w.alpha_each)
      io.store(alphas + i, io.load(alphas + i) + sum_alpha);
    else
      s.alpha += sum_of<T>(total(sum_alpha));
    if (w.shifted) s.shift += sum_of<T>(total(sum_shift));
  });
  write_row<S, T>(dx + r * n, d, count * n);
}

// One row of channels-first data: one channel of one sample.
template <class F, class S, class T>
void backward_tall(const Work<T>& w, const S* x, const S* g, S* dx, int64_t r, bool streamed, Buffers<S, T>& buffers,
                   Sums<T>& s) {
  using V = at::vec::Vectorized<T>;
  const int64_t n = w.cols, c = r % w.channels;
  const T* a = read_row<S, T>(x + r * n, n, buffers.in);
  const T* b = read_row<S, T>(g + r * n, n, buffers.grad);
  T* d = row_to_write<S, T>(dx + r * n, buffers.out);
  const V alpha(w.alpha.data[c]), weight(w.weight.data[c]), shift(w.shift.data[0]);
  V sum_alpha(0), sum_shift(0), sum_weight(0), sum_bias(0);
  along<T, 2>(n, streamed, [&](int64_t i, auto io) __attribute__((always_inline)) {
    using W = typename decltype(io)::W;
    const W xi = io.load(a + i), gi = io.load(b + i);
    W t, df;
    value_and_slope<F>(fmadd(W(alpha), xi, W(shift)), t, df);
    const W gz = gi * W(weight) * df;
    io.write(d + i, gz * W(alpha));
    sum_alpha = sum_alpha + total(gz * xi);
    sum_shift = sum_shift + total(gz);
    sum_weight = sum_weight + total(gi * t);
    sum_bias = sum_bias + total(gi);
  });
  s.whole[c] += sum_of<T>(sum_weight);
  s.whole[w.channels + c] += sum_of<T>(sum_bias);
  (w.alpha_each ? s.whole[2 * w.channels + c] : s.alpha) += sum_of<T>(sum_alpha);
  s.shift += sum_of<T>(sum_shift);
  write_row<S, T>(dx + r * n, d, n);
}

template <class F, class S, class T>
void backward_rows(const Work<T>& w, const S* x, const S* g, S* dx, std::vector<Sums<T>>& all) {
  const int64_t threads = static_cast<int64_t>(all.size());
  const int64_t share = (w.rows + threads - 1) / threads;
  const bool streamed = streams<S, T>(dx, w.rows, w.cols);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    Buffers<S, T> buffers(w.cols * (w.wide ? TILE : 1));
    for (int64_t k = first; k < last; ++k) {
      const int64_t from = k * share, to = std::min(w.rows, from + share);
      for (int64_t r = from; r < to; r += w.wide ? TILE : 1) {
        if (!w.wide) {
          backward_tall<F>(w, x, g, dx, r, streamed, buffers, all[k]);
          continue;
        }
        backward_wide<F>(w, x, g, dx, r, std::min(TILE, to - r), streamed, buffers, all[k]);
        if ((r - from) / TILE % 4 == 3 || r + TILE >= to) all[k].flush();
      }
    }
    if (streamed) end_of_stream();
  });
}

// Sums as a gradient of `like`: its dtype and shape; the sum of them where it has one value for many.
Tensor gradient_of(const double* values, int64_t count, const OptTensor& like) {
  if (!given(like)) return at::detail::empty_cpu({0}, at::kFloat);
  Tensor sum = at::detail::empty_cpu(like->sizes(), like->scalar_type());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, sum.scalar_type(), "dyt_gradient", [&] {
    scalar_t* to = sum.mutable_data_ptr<scalar_t>();
    if (sum.numel() == count) {
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<scalar_t>(values[i]);
    } else {
      to[0] = static_cast<scalar_t>(std::accumulate(values, values + count, 0.0));
    }
  });
  return sum;
}

// Gradients of x, alpha, weight, bias, shift; an empty tensor where the argument was not given.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_in, const Tensor& x_in, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
    const OptTensor& shift, int64_t squash, bool channels_last) {
  const Tensor x = x_in.contiguous(), grad = grad_in.to(x.scalar_type()).contiguous();
  Tensor dx = output_like(x);
  Tensor d_alpha, d_weight, d_bias, d_shift;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "dyt_backward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const Work<T> w(x, alpha, weight, bias, shift, channels_last);
    // A small tensor is not worth a second thread.
    const int64_t threads = std::clamp<int64_t>(w.rows / rows_at_once(w.cols), 1, at::get_num_threads());
    std::vector<Sums<T>> all(threads, Sums<T>(w.channels, w.alpha_each));
    with_squash(squash, [&](auto f) {
      backward_rows<decltype(f), scalar_t, T>(w, x.const_data_ptr<scalar_t>(), grad.const_data_ptr<scalar_t>(),
                                              dx.mutable_data_ptr<scalar_t>(), all);
    });
    Sums<T>& sum = all[0];
    for (int64_t k = 1; k < threads; ++k) sum.add(all[k]);
    const double* by_channel = sum.whole.data();
    d_alpha = w.alpha_each ? gradient_of(by_channel + 2 * w.channels, w.channels, alpha) : gradient_of(&sum.alpha, 1, alpha);
    d_weight = gradient_of(by_channel, w.channels, weight);
    d_bias = gradient_of(by_channel + w.channels, w.channels, bias);
    d_shift = gradient_of(&sum.shift, 1, shift);
  });
  return {dx, d_alpha, d_weight, d_bias, d_shift};
}

// ----------------------------------------------------------------------------------------- shapes for torch.compile

// A parameter that was left on meta takes the call here too: its result would be memory that nobody wrote.
void all_meta(const Tensor& x) {
  TORCH_CHECK(x.is_meta(), "dyt: a parameter is on meta and the input on ", x.device(),
              "; load the parameter, or type layer.to_empty(device=...) and layer.reset_parameters()");
}

Tensor forward_meta(const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
                    const OptTensor& shift, int64_t, bool) {
  all_meta(x);
  return at::empty_like(promoted(x, alpha, weight, bias, shift), at::MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward_meta(
    const Tensor&, const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
    const OptTensor& shift, int64_t, bool) {
  all_meta(x);
  const auto like = [&](const OptTensor& p) {
    return given(p) ? at::empty_like(*p, at::MemoryFormat::Contiguous) : at::empty({0}, x.options().dtype(at::kFloat));
  };
  return {at::empty_like(x, at::MemoryFormat::Contiguous), like(alpha), like(weight), like(bias), like(shift)};
}

// ---------------------------------------------------------------------------------------------------------- autograd

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class Fused : public torch::autograd::Function<Fused> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptTensor& alpha, const OptTensor& weight,
                        const OptTensor& bias, const OptTensor& shift, int64_t squash, bool channels_last) {
    at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("dyt::fused", "")
                               .typed<Tensor(const Tensor&, const OptTensor&, const OptTensor&, const OptTensor&,
                                             const OptTensor&, int64_t, bool)>();
    ctx->save_for_backward({x, alpha.value_or(Tensor()), weight.value_or(Tensor()), bias.value_or(Tensor()),
                            shift.value_or(Tensor())});
    ctx->saved_data["how"] = 2 * squash + channels_last;  // one entry: each costs as much as a small tensor
    return op.call(x, alpha, weight, bias, shift, squash, channels_last);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("dyt::fused_backward", "")
            .typed<std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(
                const Tensor&, const Tensor&, const OptTensor&, const OptTensor&, const OptTensor&, const OptTensor&,
                int64_t, bool)>();
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "dyt: the fused kernel has no second derivative; set DYT_KERNEL=reference for create_graph=True");
    const auto saved = ctx->get_saved_variables();
    const auto maybe = [&](size_t i) { return saved[i].defined() ? OptTensor(saved[i]) : OptTensor(); };
    const int64_t how = ctx->saved_data["how"].toInt();
    auto [dx, da, dw, db, ds] =
        op.call(grads[0], saved[0], maybe(1), maybe(2), maybe(3), maybe(4), how / 2, how % 2 == 1);
    const auto wanted = [&](size_t i, Tensor t) { return saved[i].defined() ? t : Tensor(); };
    return {dx, wanted(1, da), wanted(2, dw), wanted(3, db), wanted(4, ds), Tensor(), Tensor()};
  }
};

Tensor forward_autograd(const Tensor& x, const OptTensor& alpha, const OptTensor& weight, const OptTensor& bias,
                        const OptTensor& shift, int64_t squash, bool channels_last) {
  return Fused::apply(promoted(x, alpha, weight, bias, shift), alpha, weight, bias, shift, squash, channels_last);
}

}  // namespace

TORCH_LIBRARY(dyt, m) {
  m.def("fused(Tensor x, Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, int squash, bool channels_last) "
        "-> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("fused_backward(Tensor grad, Tensor x, Tensor? alpha, Tensor? weight, Tensor? bias, Tensor? shift, "
        "int squash, bool channels_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(dyt, CPU, m) {
  m.impl("fused", &forward);
  m.impl("fused_backward", &backward);
}
TORCH_LIBRARY_IMPL(dyt, Meta, m) {
  m.impl("fused", &forward_meta);
  m.impl("fused_backward", &backward_meta);
}
TORCH_LIBRARY_IMPL(dyt, Autograd, m) { m.impl("fused", &forward_autograd); }
