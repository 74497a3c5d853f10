#include "config.h"

namespace sdltx {

namespace {

constexpr const char* where = "text encoder";

}  // namespace

TowerSizes read_tower_sizes(const Json& config) {
    constexpr TowerLimits most = tower_limits;
    return {require_count(config, "hidden_size", most.width, where),
            require_count(config, "num_hidden_layers", most.layers, where),
            require_count(config, "num_attention_heads", most.heads, where),
            require_count(config, "intermediate_size", most.hidden, where),
            require_count(config, "sliding_window", most.window, where)};
}

TowerSizes GgufNumbers::sizes() const {
    constexpr TowerLimits most = tower_limits;
    return {whole("embedding_length", most.width), whole("block_count", most.layers),
            whole("attention.head_count", most.heads), whole("feed_forward_length", most.hidden),
            whole("attention.sliding_window", most.window)};
}

std::vector<bool> read_layer_types(const Json& config) {
    std::vector<bool> global;
    for (auto& type : require<std::vector<std::string>>(config, "layer_types", where)) {
        if (type != "full_attention" && type != "sliding_attention")
            throw Error(ErrorCode::model_mismatch,
                        std::string("[") + where + "] layer type " + spell(Json(type)) + " is not implemented");
        global.push_back(type == "full_attention");
    }
    return global;
}

void GgufNumbers::refuse(const std::string& key, const std::string& what) const {
    throw Error(ErrorCode::model_mismatch, "[" + file_.path() + "] '" + prefix_ + "." + key + "' " + what);
}

std::optional<double> GgufNumbers::find(const std::string& key) const {
    const GgufValue* v = file_.value(prefix_ + "." + key);
    if (!v) return std::nullopt;
    return v->kind == GgufValue::Kind::real ? v->real : static_cast<double>(v->integer);
}

double GgufNumbers::number(const std::string& key, std::optional<double> fallback) const {
    const auto found = find(key);
    if (!found && !fallback)
        throw Error(ErrorCode::model_mismatch,
                    "[" + file_.path() + "] the metadata lacks '" + prefix_ + "." + key + "'");
    return found ? *found : *fallback;
}

int64_t GgufNumbers::whole(const std::string& key, int64_t most) const {
    const double n = number(key);
    if (!(n >= 1 && n <= static_cast<double>(most))) refuse(key, "is not between 1 and " + std::to_string(most));
    return static_cast<int64_t>(n);
}

std::vector<double> GgufNumbers::of_layers(const std::string& key, int64_t layers) const {
    const auto count = static_cast<size_t>(layers);
    const GgufValue* v = file_.value(prefix_ + "." + key);
    if (!v || v->kind != GgufValue::Kind::array) return std::vector<double>(count, number(key));
    std::vector<double> numbers = v->numbers();
    if (numbers.size() != count)
        refuse(key, "has " + std::to_string(numbers.size()) + " values for " + std::to_string(layers) + " layers");
    return numbers;
}

}  // namespace sdltx
