#include "weights.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "base/parallel.h"
#include "conversion.h"
#include "encodings.h"
#include "values.h"

namespace sdltx {

namespace {

constexpr size_t max_reported = 8;
// Bytes to convert that are worth waking more threads for.
constexpr size_t worth_threads = size_t{4} << 20;

// The shape without axes of size 1: files differ in whether they keep those of a vector or a 1x1 kernel.
std::vector<int64_t> squeezed(std::vector<int64_t> shape) {
    shape.erase(std::remove(shape.begin(), shape.end(), 1), shape.end());
    return shape;
}

}  // namespace

Weights::Weights(const ModelFiles& files, const Backend& backend, std::string component, std::string prefix)
    : files_(files), backend_(backend), component_(std::move(component)), prefix_(std::move(prefix)), groups_(1) {}

void Weights::begin_block() {
    declaring_ = groups_.size();
    groups_.emplace_back();
    if (backend_.offload() == Offload::blocks) kept_.blocks.push_back(false);
}

ggml_type Weights::stored_type(const std::string& name) const {
    const TensorInfo* info = files_.find(prefix_ + name);
    if (info && info->encoding != Encoding::none) return GGML_TYPE_BF16;
    return info && info->type < GGML_TYPE_COUNT ? info->type : GGML_TYPE_F32;
}

ggml_tensor* Weights::declare(const std::string& name, std::vector<int64_t> shape, ggml_type type,
                              std::vector<int64_t> ne, Declared how) {
    how.name = prefix_ + name;
    how.shape = std::move(shape);
    how.info = files_.find(how.name);
    if (how.info) how.info->used = true;
    const bool same =
        how.info && (type == fp8_type ? computed_as_stored(*how.info) : how.info->type == type && aligned(*how.info));
    how.in_place = same && how.layout.as_stored() && backend_.uses_host_memory();
    how.tensor = ggml_new_tensor(arena_.context(), type, static_cast<int>(ne.size()), ne.data());
    ggml_set_name(how.tensor, how.name.c_str());
    how.uses = declaring_uses_;
    groups_[declaring_].declared.push_back(declared_.size());
    declared_.push_back(std::move(how));
    return declared_.back().tensor;
}

std::shared_ptr<const std::vector<float>> Weights::host(const std::string& name, std::vector<int64_t> shape) {
    Declared d;
    d.name = prefix_ + name;
    d.shape = std::move(shape);
    d.info = files_.find(d.name);
    if (d.info) d.info->used = true;
    d.values = std::make_shared<std::vector<float>>();
    groups_[declaring_].declared.push_back(declared_.size());
    declared_.push_back(d);
    return d.values;
}

ggml_tensor* Weights::matrix(const std::string& name, std::vector<int64_t> shape) {
    ggml_type type = stored_type(name);
    const bool whole_rows = type < GGML_TYPE_COUNT && shape.back() % ggml_blck_size(type) == 0;
    const TensorInfo* info = files_.find(prefix_ + name);
    if (backend_.exact() || !info || !readable(*info) || !whole_rows) type = GGML_TYPE_F32;
    std::vector<int64_t> ne(shape.rbegin(), shape.rend());
    return declare(name, std::move(shape), type, std::move(ne), {});
}

ScaledMatrix Weights::scaled_matrix(const std::string& name, std::vector<int64_t> shape) {
    const TensorInfo* info = files_.find(prefix_ + name);
    if (backend_.exact() || !info || info->encoding == Encoding::none || info->shape != shape)
        return {matrix(name, std::move(shape)), nullptr, nullptr};
    const std::vector<int64_t> ne(shape.rbegin(), shape.rend());
    const bool as_stored = backend_.uses_host_memory() && computed_as_stored(*info);
    Declared how;
    how.layout.packed = !as_stored;
    ScaledMatrix m{declare(name, shape, as_stored ? fp8_type : packed_type(*info), ne, std::move(how)), nullptr,
                   as_stored ? info : nullptr};
    if (const TensorInfo* scale = info->scale) {
        const int64_t n = scale->elements();
        m.scale = vector(scale->name.substr(prefix_.size()), {n});
    }
    return m;
}

RowTable Weights::table(const std::string& name, std::vector<int64_t> shape) {
    Declared d;
    d.name = prefix_ + name;
    d.shape = std::move(shape);
    d.info = files_.find(d.name);
    if (d.info) d.info->used = true;
    d.in_place = d.info && backend_.uses_host_memory();
    const RowTable table{d.info, d.shape.back()};
    groups_[declaring_].declared.push_back(declared_.size());
    declared_.push_back(std::move(d));
    return table;
}

std::vector<float> RowTable::rows(const std::vector<int32_t>& numbers) const {
    // Rows may end within a block of values that are stored together, where another program cut them otherwise.
    const int64_t block = stored->encoding == Encoding::none ? ggml_blck_size(stored->type) : 1;
    std::vector<float> values, some;
    values.reserve(numbers.size() * static_cast<size_t>(width));
    for (const int32_t number : numbers) {
        const int64_t begin = number * width, first = begin / block * block,
                      end = (begin + width + block - 1) / block * block;
        some.resize(static_cast<size_t>(end - first));
        read_values(*stored, first, end - first, some.data());
        values.insert(values.end(), some.begin() + (begin - first), some.begin() + (begin - first + width));
    }
    return values;
}

ggml_tensor* Weights::vector(const std::string& name, std::vector<int64_t> shape, float plus) {
    std::vector<int64_t> ne(shape.rbegin(), shape.rend());
    Declared how;
    how.layout.plus = plus;
    return declare(name, std::move(shape), GGML_TYPE_F32, std::move(ne), std::move(how));
}

ggml_tensor* Weights::permuted(const std::string& name, std::vector<int64_t> shape, ggml_type type,
                               std::vector<int64_t> ne, std::vector<Axis> order) {
    Declared how;
    how.layout.order = std::move(order);
    return declare(name, std::move(shape), type, std::move(ne), std::move(how));
}

ggml_tensor* Weights::laid_out(const std::string& name, std::vector<int64_t> shape, std::vector<int64_t> ne,
                               Layout::Fill fill) {
    Declared how;
    how.layout.fill = std::move(fill);
    return declare(name, std::move(shape), GGML_TYPE_F32, std::move(ne), std::move(how));
}

std::vector<Weights::Tensor> Weights::tensors() const {
    std::vector<Tensor> all;
    for (size_t group = 0; group < groups_.size(); ++group)
        for (size_t i : groups_[group].declared)
            if (const Declared& d = declared_[i]; d.tensor)
                all.push_back({d.name.substr(prefix_.size()), d.tensor, d.shape, group});
    return all;
}

std::string Weights::problem(const Declared& d) const {
    if (!d.info) return "missing " + d.name + " " + spell_shape(d.shape);
    if (squeezed(d.info->shape) != squeezed(d.shape))
        return "misshapen " + d.name + ": expected " + spell_shape(d.shape) + ", the file has " +
               spell_shape(d.info->shape);
    return "";
}

std::vector<std::string> Weights::problems() const {
    std::vector<std::string> out;
    // Every weight of a file has the same fault then, so a line for each would say one thing a thousand times.
    std::map<std::string, std::pair<std::string, int>> common;  // what is wrong -> the first such weight, how many
    for (auto& d : declared_) {
        std::string fault;
        if (d.info && files_.duplicate(d.name)) {
            const auto& two = *files_.duplicate(d.name);
            fault = two.first + " and " + two.second + " both hold its weights; give one of them";
        } else if (d.info && !readable(*d.info)) {
            fault = d.info->file->path() + " holds weights of the type " + d.info->dtype +
                    ", which this version does not read; give the files in BF16 or as GGUF";
        }
        if (!fault.empty()) {
            auto& [first, n] = common[fault];
            if (++n == 1) first = d.name;
        } else if (std::string p = problem(d); !p.empty()) {
            out.push_back("[" + component_ + "] " + p);
        }
    }
    for (auto& [fault, which] : common)
        out.insert(out.begin(), "[" + component_ + "] " + fault + " (" + which.first +
                                    (which.second > 1 ? " and " + std::to_string(which.second - 1) + " more)" : ")"));
    return out;
}

void check_weights(const std::vector<Weights*>& networks) {
    std::vector<std::string> problems;
    for (auto* w : networks)
        for (auto& p : w->problems()) problems.push_back(std::move(p));
    if (problems.empty()) return;
    std::string text = "[load] the files do not make up the model: ";
    for (size_t i = 0; i < std::min(problems.size(), max_reported); ++i) text += (i ? "; " : "") + problems[i];
    if (problems.size() > max_reported) text += "; and " + std::to_string(problems.size() - max_reported) + " more";
    throw Error(ErrorCode::model_mismatch, text);
}

std::vector<size_t> Weights::absent() const {
    std::vector<size_t> groups;
    for (size_t i = 0; i < groups_.size(); ++i)
        if (!complete(groups_[i]) && !passes(i)) groups.push_back(i);
    return groups;
}

int64_t Weights::missing() const {
    size_t count = 0;
    for (size_t group : absent())
        for (size_t i : groups_[group].declared) count += needs(declared_[i]);
    return static_cast<int64_t>(count);
}

void Weights::acquire(const Progress& progress) {
    if (const auto groups = absent(); !groups.empty()) bring(groups, progress);
    ++holders_;
}

void Weights::release() {
    if (--holders_ > 0) return;
    const bool stays = backend_.offload() == Offload::none || backend_.offload() == Offload::automatic;
    // Blocks that pass are not there between runs, also where one was left in its middle.
    for (size_t i = 0; i < groups_.size(); ++i)
        if (!stays || passes(i)) drop(i, /*keep_buffers=*/false);
    spare_.clear();
}

void Weights::enter(size_t block) {
    if (!complete(groups_[block + 1])) bring({block + 1}, {});
}

void Weights::keep(Kept kept) {
    kept_ = std::move(kept);
    size_t bytes = 0;
    for (size_t i = 1; i < groups_.size(); ++i) {
        if (passes(i) && groups_[i].present) drop(i, /*keep_buffers=*/false);
        for (size_t number : groups_[i].declared) {
            Declared& d = declared_[number];
            if (d.in_place && needs(d)) bytes += stored_bytes(d);
            d.pass = d.in_place && bytes > kept_.pages;
        }
    }
}

std::array<const TensorInfo*, 2> Weights::parts(const Declared& d) { return {d.info, d.info->block_scale}; }

size_t Weights::stored_bytes(const Declared& d) {
    return d.info->nbytes + (d.info->block_scale ? d.info->block_scale->nbytes : 0);
}

void Weights::add_ranges(const Declared& d, std::vector<Range>& to) {
    for (const TensorInfo* t : parts(d))
        if (t) to.push_back({&t->file->map(), t->data, t->nbytes});
}

Weights::Size Weights::size_of(size_t group) const {
    Size size;
    const size_t device = group ? device_of(group - 1) : 0;
    for (size_t i : groups_[group].declared) {
        const Declared& d = declared_[i];
        if (!needs(d)) continue;
        if (d.in_place)
            size.mapped += stored_bytes(d);
        else if (d.tensor)
            size.own += ggml_backend_buft_get_alloc_size(backend_.buffer_type(device), d.tensor);
    }
    return size;
}

Weights::Size Weights::size() const {
    Size sum;
    for (size_t i = 0; i < groups_.size(); ++i) sum += size_of(i);
    return sum;
}

size_t Weights::held(size_t device) const {
    size_t bytes = 0;
    for (size_t i = 0; i < groups_.size(); ++i)
        if (device == (i ? device_of(i - 1) : 0))
            for (const Buffer& b : groups_[i].buffers) bytes += ggml_backend_buffer_get_size(b.get());
    return bytes;
}

// Neighbours as one, with what little lies between them: the system gives up and reads what is large better.
std::vector<Weights::Range> Weights::merged(std::vector<Range> ranges) {
    constexpr ptrdiff_t gap = 64 << 10;
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return std::tie(a.file, a.begin) < std::tie(b.file, b.begin); });
    std::vector<Range> found;
    for (const Range& r : ranges) {
        Range* last = found.empty() || found.back().file != r.file ? nullptr : &found.back();
        if (last && r.begin - (last->begin + last->bytes) <= gap)
            last->bytes = std::max(last->bytes, static_cast<size_t>(r.begin + r.bytes - last->begin));
        else
            found.push_back(r);
    }
    return found;
}

std::vector<Weights::Range> Weights::ranges(size_t block) const {
    std::vector<Range> found;
    for (size_t i : groups_[block + 1].declared)
        if (const Declared& d = declared_[i]; needs(d) && (d.in_place || passes(block + 1))) add_ranges(d, found);
    return merged(std::move(found));
}

const MappedFile* Weights::file() const {
    for (const Declared& d : declared_)
        if (d.in_place) return &d.info->file->map();
    return nullptr;
}

void Weights::leave(size_t block) {
    if (passes(block + 1)) drop(block + 1, /*keep_buffers=*/true);
}

std::vector<Weights::Range> Weights::passing(size_t block) const {
    std::vector<Range> found;
    for (size_t i : groups_[block + 1].declared)
        if (const Declared& d = declared_[i]; needs(d) && d.pass) add_ranges(d, found);
    return merged(std::move(found));
}

void Weights::let_go() {
    if (in_use()) return;
    for (size_t i = 0; i < groups_.size(); ++i) drop(i, /*keep_buffers=*/false);
    spare_.clear();
}

void Weights::let_go_of_left_out() {
    if (in_use()) return;
    for (size_t i = 0; i < groups_.size(); ++i) {
        const auto& declared = groups_[i].declared;
        if (std::any_of(declared.begin(), declared.end(), [&](size_t of) {
                const Declared& d = declared_[of];
                return !needs(d) && !d.in_place && d.tensor && d.tensor->data;
            }))
            drop(i, /*keep_buffers=*/false);
    }
}

void Weights::let_go_of_pages() {
    if (in_use()) return;
    for (const Declared& d : declared_)
        if (d.in_place)
            for (const TensorInfo* t : parts(d))
                if (t) t->file->map().drop(t->data, t->nbytes);
}

void Weights::bring(const std::vector<size_t>& groups, const Progress& progress) {
    std::vector<size_t> which;
    try {
        for (size_t group : groups) {
            if (groups_[group].present) drop(group, /*keep_buffers=*/false);  // it lacks something
            place(group);
            for (size_t i : groups_[group].declared)
                if (needs(declared_[i])) which.push_back(i);
        }
        convert_all(which, progress);
    } catch (...) {
        for (size_t i : groups) drop(i, /*keep_buffers=*/false);
        throw;
    }
    for (size_t i : groups) {
        groups_[i].present = true;
        groups_[i].lacks = left_out_;
    }
}

void Weights::place(size_t group) {
    std::vector<ggml_tensor*> owned;
    for (size_t i : groups_[group].declared) {
        const Declared& d = declared_[i];
        if (!d.tensor || !needs(d)) continue;
        if (!d.in_place)
            owned.push_back(d.tensor);
        else if (!d.tensor->buffer &&
                 ggml_backend_tensor_alloc(buffer_over(*d.info->file), d.tensor, const_cast<uint8_t*>(d.info->data)) !=
                     GGML_STATUS_SUCCESS)
            throw Error(ErrorCode::backend,
                        "[" + component_ + "] the device does not take " + d.name + " from the file");
    }
    const size_t device = group ? device_of(group - 1) : 0;
    const auto take_spare = [&](size_t bytes) -> Buffer {
        const std::lock_guard<std::mutex> lock(*shared_);
        const auto spare = std::find_if(spare_.begin(), spare_.end(), [&](const Buffer& b) {
            return ggml_backend_buffer_get_type(b.get()) == backend_.buffer_type(device);
        });
        if (spare == spare_.end()) return nullptr;
        Buffer buffer = std::move(*spare);
        spare_.erase(spare);
        // One that is too small makes room for a larger one.
        return ggml_backend_buffer_get_size(buffer.get()) >= bytes ? std::move(buffer) : nullptr;
    };
    groups_[group].buffers = backend_.allocate(owned, Backend::Use::weights, device, component_, take_spare);
}

void Weights::drop(size_t number, bool keep_buffers) {
    Group& group = groups_[number];
    for (size_t i : group.declared) {
        const Declared& d = declared_[i];
        if (d.values) d.values->clear();
        if (d.in_place && group.present)
            for (const TensorInfo* t : parts(d))
                if (t) t->file->map().forget(t->data, t->nbytes);
        if (!d.tensor || d.in_place) continue;
        d.tensor->data = nullptr;
        d.tensor->buffer = nullptr;
    }
    if (keep_buffers) {
        const std::lock_guard<std::mutex> lock(*shared_);
        for (Buffer& b : group.buffers) spare_.push_back(std::move(b));
    }
    group.buffers.clear();
    group.present = false;
}

// One tensor at a time on every thread; progress is reported, and may stop the rest, from the calling one.
void Weights::convert_all(const std::vector<size_t>& which, const Progress& progress) const {
    const int64_t total = static_cast<int64_t>(which.size());
    size_t bytes = 0;
    for (size_t i : which)
        if (const Declared& d = declared_[i]; !d.in_place) bytes += d.info->nbytes;
    parallel_for(
        bytes >= worth_threads ? backend_.threads() : 1, total,
        [&](int64_t i) {
            const Declared& d = declared_[which[static_cast<size_t>(i)]];
            if (d.values)
                *d.values = floats_of(*d.info);
            else if (d.tensor && !d.in_place)
                convert(*d.info, d.layout, d.tensor, backend_.uploads());
        },
        [&](int64_t done) { report(progress, "load", std::min(done, total - 1), total); });
    report(progress, "load", total, total);
}

ggml_backend_buffer_t Weights::buffer_over(const ModelFile& file) {
    const std::lock_guard<std::mutex> lock(*shared_);
    for (auto& [mapped, buffer] : mapped_)
        if (mapped == &file) return buffer.get();
    Buffer buffer = backend_.map_host_memory(file.map().data(), file.map().size());
    if (!buffer)
        throw Error(ErrorCode::backend, "[" + component_ + "] the device cannot use " + file.path() + " in place");
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return mapped_.emplace_back(&file, std::move(buffer)).second.get();
}

size_t Weights::mapped() const {
    size_t bytes = 0;
    for (const Group& group : groups_)
        if (group.present)
            for (size_t i : group.declared)
                if (const Declared& d = declared_[i]; d.in_place && (d.uses & group.lacks) == 0)
                    bytes += stored_bytes(d);
    return bytes;
}

}  // namespace sdltx
