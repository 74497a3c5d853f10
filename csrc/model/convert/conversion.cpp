#include "conversion.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/json.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/platform.h"
#include "gemma4/config.h"
#include "ggml/values.h"
#include "model/names.h"
#include "model/networks.h"

namespace sdltx {

namespace {

// Elements that a thread has in its hands at a time; whole rows, so some have more.
constexpr int64_t piece_elements = 1 << 20;

// Is written by name only: others take it as they have it. Its tokenizer, a text, comes along as bytes.
constexpr const char *text_encoder = "text_encoder", *tokenizer = "tokenizer_json";

struct FilePart {
    const char* name;
    std::vector<std::string> prefixes;
};

const std::vector<FilePart>& file_parts() {
    static const std::vector<FilePart> parts = {{"transformer", {"model.diffusion_model."}},
                                                {"text_projection", {"text_embedding_projection."}},
                                                {"video_vae", {"vae."}},
                                                {"audio_vae", {"audio_vae.", "vocoder."}},
                                                {"duration_head", {"duration_head."}},
                                                {text_encoder, {"language_model.model.", tokenizer}}};
    return parts;
}

const FilePart* part_of_tensor(const std::string& name) {
    for (auto& part : file_parts())
        for (auto& prefix : part.prefixes)
            if (name.rfind(prefix, 0) == 0) return &part;
    return nullptr;
}

bool starts_projection(const std::string& name) { return name.rfind("text_embedding_projection.", 0) == 0; }

// As files of one part are named by those who share them: the transformer bare in a GGUF, the video VAE always.
std::string stored_name(const std::string& name, const std::vector<std::string>& parts, FileFormat format) {
    if (parts.size() != 1) return name;
    const bool bare = parts.front() == "video_vae" || (parts.front() == "transformer" && format == FileFormat::gguf);
    const FilePart* part = part_of_tensor(name);
    return bare ? name.substr(part->prefixes.front().size()) : name;
}

// What is kept of the metadata of the sources that something is written of, and what is added to it.
std::map<std::string, std::string> texts_of(const ModelFiles& files, const ModelConfig& config, FileFormat format,
                                            const std::vector<const TensorInfo*>& written) {
    static const std::unordered_map<std::string, std::string> none;
    std::map<std::string, std::string> texts;
    std::set<const ModelFile*> sources;
    for (const TensorInfo* t : written) sources.insert(t->file);
    for (auto& file : files.files())
        for (auto& [key, text] : sources.count(file.get()) ? file->texts() : none) {
            const bool of_format = key == "format" || key == "_quantization_metadata" || key == "sdltx.defaults" ||
                                   key == "config" || key == "ltx.config" || key == "general.config" ||
                                   key == "general.architecture" || key == "general.type" ||
                                   key.rfind("tokenizer.", 0) == 0;
            if (!of_format) texts.emplace(key, text);
        }
    const bool text_alone = std::none_of(written.begin(), written.end(), [](const TensorInfo* t) {
        return part_of_tensor(t->name)->name != std::string(text_encoder) && !starts_projection(t->name);
    });
    // Text encoders tell their version in a way of their own.
    if (!text_alone) {
        texts["config"] = config_text(files);
        texts["model_version"] = config.version;
    }
    const ModelInfo info = describe(files, config);
    // Of the transformer: beside another one it would speak of that.
    const TensorInfo* probe = files.find("model.diffusion_model.patchify_proj.weight");
    if (probe && sources.count(probe->file) && std::find(written.begin(), written.end(), probe) != written.end()) {
        if (const auto own = probe->file->metadata("sdltx.defaults"))
            texts["sdltx.defaults"] = *own;
        else if (info.distilled)
            texts["sdltx.defaults"] = R"({"distilled": true})";
    }
    // What transformers asks of a safetensors file that has metadata.
    if (format == FileFormat::safetensors) texts["format"] = "pt";
    if (format == FileFormat::gguf) {
        texts["general.architecture"] = "ltxv";
        texts.emplace("general.name", info.name);
        texts["general.quantized_by"] = "sdltx " SDLTX_VERSION;
    }
    return texts;
}

}  // namespace

std::vector<std::string> file_part_names() {
    std::vector<std::string> names;
    for (auto& part : file_parts()) names.push_back(part.name);
    return names;
}

Conversion::Conversion(const std::vector<std::string>& paths, const ConvertOptions& options)
    : files_(paths, ltx_naming()), threads_(options.threads > 0 ? options.threads : usable_processors()) {
    constexpr int max_threads = 512;
    if (options.threads < 0 || options.threads > max_threads)
        throw Error(ErrorCode::invalid_request, "[threads] " + std::to_string(options.threads) +
                                                    " is not between 0 (one per core) and " +
                                                    std::to_string(max_threads));
    const Mix& mix = mix_of(options.type);
    std::set<const TensorInfo*> belongs_to_another;  // scales and marks of quantisations
    for (auto& file : files_.files())
        for (auto& t : file->tensors())
            if (t.used) belongs_to_another.insert(&t);
    const auto named = [&](const char* part) {
        return std::find(options.parts.begin(), options.parts.end(), part) != options.parts.end();
    };
    // With `problems` a text encoder may come alone.
    Problems problems;
    const bool with_text = named(text_encoder);
    const ModelConfig config = ModelConfig::load(files_, with_text ? &problems : nullptr);
    if (!problems.empty()) throw Error(ErrorCode::model_mismatch, problems.front());
    if (with_text && !(files_.find(tokenizer) && Gemma4Config::is_among(files_)))
        throw Error(ErrorCode::model_mismatch,
                    "[convert] the text encoder of LTX-2.5 is converted, Gemma 4 with its tokenizer inside; of Gemma 3 "
                    "take a GGUF made by llama.cpp");
    {
        Backend backend("cpu", false, 1, Offload::none);
        Workspace workspace(backend);
        const Networks networks(files_, config, workspace);  // complete, or this throws
    }
    const auto wanted = [&](const FilePart& part) {
        return options.parts.empty() ? part.name != std::string(text_encoder) : named(part.name);
    };
    for (auto& name : options.parts)
        if (std::none_of(file_parts().begin(), file_parts().end(), [&](auto& part) { return name == part.name; })) {
            std::string known;
            for (auto& part : file_parts()) known += (known.empty() ? "" : ", ") + std::string(part.name);
            throw Error(ErrorCode::invalid_request, "[convert] there is no part '" + name + "'; use " + known);
        }
    // Where the text encoder's file has the projections they are used from there.
    const TensorInfo *projection = files_.find("text_embedding_projection.video_aggregate_embed.weight"),
                     *tower = files_.find("language_model.model.embed_tokens.weight");
    const bool with_encoder = projection && tower && projection->file == tower->file;
    if (with_encoder && options.parts.empty())
        log(20, "[convert] left out: the text projection, which lies in the file of the text encoder");
    for (auto& part : file_parts())
        if (part.name == std::string("text_projection") && with_encoder && options.parts.empty())
            continue;
        else if (wanted(part) && std::any_of(part.prefixes.begin(), part.prefixes.end(),
                                             [&](auto& prefix) { return files_.has_prefix(prefix); }))
            parts_.push_back(part.name);
        else if (wanted(part) && !options.parts.empty())
            throw Error(ErrorCode::model_mismatch, "[convert] the files hold no " + std::string(part.name));
    if (parts_.empty()) throw Error(ErrorCode::model_mismatch, "[convert] the files hold no part that is converted");

    for (auto& file : files_.files())
        for (auto& t : file->tensors()) {
            const FilePart* part = part_of_tensor(t.name);
            if (!part || std::find(parts_.begin(), parts_.end(), part->name) == parts_.end() ||
                belongs_to_another.count(&t) || t.elements() == 0)
                continue;
            if (const auto* two = files_.duplicate(t.name))
                throw Error(ErrorCode::model_mismatch, "[convert] " + two->first + " and " + two->second +
                                                           " both hold " + t.name + "; give one of them");
            if (t.name == tokenizer) {
                sources_.push_back(&t);
                continue;
            }
            if (!readable(t) && !t.used) {
                log(20, "[convert] left out: " + t.name + " of the type " + t.dtype + ", which nothing needs");
                continue;
            }
            if (!readable(t))
                throw Error(ErrorCode::model_mismatch,
                            "[" + file->path() + "] '" + t.stored_name + "' has the unsupported type " + t.dtype);
            sources_.push_back(&t);
        }
    const Quantisation quantisation(mix, options.rules, sources_);
    for (const TensorInfo* t : sources_) {
        if (t->name == tokenizer) {
            written_.push_back({t->name, GGML_TYPE_I8, t->shape});
            continue;
        }
        ggml_type type = quantisation.type_of(*t);
        // Safetensors hold floats; what else is there and is to stay becomes BF16.
        if (options.format == FileFormat::safetensors && options.type == "keep" && ggml_is_quantized(type))
            type = GGML_TYPE_BF16;
        // As it is with every other type: programs that read GGUF files take parameters in F32 only.
        if (options.format == FileFormat::gguf && options.type == "keep" && type == GGML_TYPE_BF16 &&
            (ends_with(t->name, "learnable_registers") || ends_with(t->name, "keyframes_abs_pos_embedding")))
            type = GGML_TYPE_F32;
        written_.push_back({stored_name(t->name, parts_, options.format), type, t->shape});
    }
    for (auto& pattern : quantisation.unused_rules())
        throw Error(ErrorCode::invalid_request, "[convert] no matrix that is converted is called '" + pattern +
                                                    "'; see sdltx-cli inspect --tensors");
    if (!options.imatrix.empty()) imatrix_ = Imatrix::load(options.imatrix);
    bool helps = false;
    for (size_t i = 0; i < sources_.size(); ++i) {
        const bool quantised = ggml_is_quantized(written_[i].type);
        importance_.push_back(quantised ? imatrix_.of(*sources_[i]) : nullptr);
        helps = helps || importance_.back();
        if (quantised && !importance_.back() && ggml_quantize_requires_imatrix(written_[i].type))
            throw Error(ErrorCode::invalid_request,
                        "[convert] the type " + std::string(ggml_type_name(written_[i].type)) +
                            " needs an imatrix, which has no values for " + sources_[i]->name +
                            "; give one, or use another type such as iq2_s or q2_k");
    }
    if (!options.imatrix.empty() && !helps)
        throw Error(
            ErrorCode::model_mismatch,
            "[" + options.imatrix + "] the imatrix has no values for what is quantised; it is of another model");
    std::map<std::string, uint32_t> numbers;
    if (options.format == FileFormat::gguf) numbers = {{"general.quantization_version", GGML_QNT_VERSION}};
    if (options.format == FileFormat::gguf && options.type != "keep") numbers["general.file_type"] = mix.file_type;
    writer_ = std::make_unique<ModelWriter>(options.format, written_,
                                            texts_of(files_, config, options.format, sources_), numbers);
}

Conversion::~Conversion() = default;

std::vector<std::string> Conversion::files() const {
    std::vector<std::string> paths;
    for (auto& file : files_.files()) paths.push_back(file->path());
    return paths;
}

std::vector<std::pair<std::string, std::string>> Conversion::types() const {
    std::vector<std::pair<std::string, std::string>> types;
    for (auto& t : written_) types.push_back({t.name, ggml_type_name(t.type)});
    return types;
}

void Conversion::write(const std::string& path, const Progress& progress) {
    std::vector<Piece> pieces;
    for (size_t i = 0; i < sources_.size(); ++i) {
        const int64_t row = sources_[i]->shape.empty() ? 1 : sources_[i]->shape.back(), all = sources_[i]->elements();
        // Whole rows, and whole blocks of the source, whose rows may have been of another length.
        const int64_t block = sources_[i]->type < GGML_TYPE_COUNT ? ggml_blck_size(sources_[i]->type) : 1;
        const int64_t unit = std::lcm(row, block);
        const int64_t step = std::max<int64_t>(1, piece_elements / unit) * unit;
        for (int64_t first = 0; first < all; first += step) pieces.push_back({i, first, std::min(step, all - first)});
    }
    for (auto& t : written_)
        if (ggml_is_quantized(t.type)) ggml_quantize_init(t.type);
    writer_->open(path);
    const int64_t total = static_cast<int64_t>(pieces.size());
    parallel_for(
        threads_, total, [&](int64_t i) { convert(pieces[static_cast<size_t>(i)]); },
        [&](int64_t done) { report(progress, "convert", std::min(done, total - 1), total); });
    writer_->close();
    report(progress, "convert", total, total);
}

void Conversion::convert(const Piece& piece) {
    const TensorInfo& source = *sources_[piece.tensor];
    const ggml_type type = written_[piece.tensor].type;
    const size_t at = ggml_row_size(type, piece.first), bytes = ggml_row_size(type, piece.count);
    if (source.type == type || source.name == tokenizer) {
        check_mapped(source.data + at, bytes);
        writer_->write(piece.tensor, at, source.data + at, bytes);
    } else {
        std::vector<float> values(static_cast<size_t>(piece.count));
        read_values(source, piece.first, piece.count, values.data());
        std::vector<uint8_t> out(bytes);
        // Quantisers may loop or end the process on anything else.
        if (ggml_is_quantized(type)) {
            if (std::any_of(values.begin(), values.end(), [](float v) { return !std::isfinite(v); }))
                throw Error(ErrorCode::model_file, "[" + source.file->path() + "] '" + source.stored_name +
                                                       "' holds values that are not finite; the file is damaged");
            const int64_t row = source.shape.back();
            const auto* importance = importance_[piece.tensor];
            ggml_quantize_chunk(type, values.data(), out.data(), 0, piece.count / row, row,
                                importance ? importance->data() : nullptr);
        } else {
            convert_values(values.data(), GGML_TYPE_F32, out.data(), type, piece.count);
        }
        writer_->write(piece.tensor, at, out.data(), bytes);
    }
    // Pages of the source would count as memory of this process for as long as they stay; reading one maps some around.
    constexpr size_t around = size_t{64} << 10;
    const MappedFile& map = source.file->map();
    const double bytes_per_element = static_cast<double>(source.nbytes) / static_cast<double>(source.elements());
    const auto offset = [&](int64_t elements) {  // about, if there is no end to the digits
        return std::min(source.nbytes, static_cast<size_t>(bytes_per_element * static_cast<double>(elements)));
    };
    const size_t begin = static_cast<size_t>(source.data - map.data()) + offset(piece.first);
    const size_t from = begin - std::min(begin, around),
                 to = std::min(map.size(), begin + offset(piece.count) + around);
    map.forget(map.data() + from, to - from);
}

}  // namespace sdltx
