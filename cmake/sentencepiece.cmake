# Builds the processor half of sentencepiece (no trainer, no tools), static and hidden: target `sdltx_sentencepiece`.
# 0.2.1 is pinned because it is the newest release that carries a small stand-in for abseil and protobuf-lite in its
# source distribution; 0.2.2 brings a thousand files of abseil and 0.2.3 clones it while configuring.
include("${CMAKE_CURRENT_LIST_DIR}/fetch_sdist.cmake")

sdltx_source_overrides(SDLTX_SENTENCEPIECE "sentencepiece")

function(sdltx_add_sentencepiece)
  set(source "${SDLTX_SENTENCEPIECE_SOURCE_DIR}")
  if(NOT source)
    sdltx_fetch_sdist(root
      NAME sentencepiece
      VERSION 0.2.1
      SHA256 8138cec27c2f2282f4a34d9a016e3374cd40e5c6e9cb335063db66a0a3b71fad
      MEMBERS sentencepiece/LICENSE sentencepiece/config.h.in sentencepiece/src sentencepiece/third_party
      OVERRIDE SDLTX_SENTENCEPIECE)
    set(source "${root}/sentencepiece")
  elseif(NOT EXISTS "${source}/third_party/protobuf-lite")
    message(FATAL_ERROR "SDLTX_SENTENCEPIECE_SOURCE_DIR=${source} is not a source tree of sentencepiece 0.2.1: "
                        "it has no third_party/protobuf-lite")
  endif()

  set(processor
    bpe_model.cc char_model.cc error.cc filesystem.cc model_factory.cc model_interface.cc normalizer.cc
    sentencepiece_processor.cc unigram_model.cc util.cc word_model.cc
    builtin_pb/sentencepiece.pb.cc builtin_pb/sentencepiece_model.pb.cc)
  set(protobuf
    arena.cc arenastring.cc bytestream.cc coded_stream.cc common.cc extension_set.cc generated_enum_util.cc
    generated_message_table_driven_lite.cc generated_message_util.cc implicit_weak_message.cc int128.cc io_win32.cc
    message_lite.cc parse_context.cc repeated_field.cc status.cc statusor.cc stringpiece.cc stringprintf.cc
    structurally_valid.cc strutil.cc time.cc wire_format_lite.cc zero_copy_stream.cc zero_copy_stream_impl.cc
    zero_copy_stream_impl_lite.cc)
  list(TRANSFORM processor PREPEND "${source}/src/")
  list(TRANSFORM protobuf PREPEND "${source}/third_party/protobuf-lite/")

  set(PROJECT_NAME sentencepiece)
  set(PROJECT_VERSION 0.2.1)
  set(INSTALL_DATADIR "")
  set(generated "${CMAKE_CURRENT_BINARY_DIR}/_sentencepiece")
  configure_file("${source}/config.h.in" "${generated}/config.h")

  add_library(sdltx_sentencepiece STATIC EXCLUDE_FROM_ALL
    ${processor} ${protobuf} "${source}/third_party/absl/flags/flag.cc")
  target_include_directories(sdltx_sentencepiece PRIVATE "${generated}" "${source}" "${source}/third_party")
  target_include_directories(sdltx_sentencepiece SYSTEM PUBLIC
    "${source}/src" "${source}/src/builtin_pb" "${source}/third_party/protobuf-lite")
  target_compile_definitions(sdltx_sentencepiece PRIVATE HAVE_PTHREAD=1 _USE_INTERNAL_STRING_VIEW)
  target_compile_features(sdltx_sentencepiece PUBLIC cxx_std_17)
  target_compile_options(sdltx_sentencepiece PRIVATE $<IF:$<CXX_COMPILER_ID:MSVC>,/w,-w> $<$<CONFIG:Release>:-O1>)
  set_target_properties(sdltx_sentencepiece PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # Most of the time goes into headers, so several sources are compiled as one; protobuf's macros have to go in between.
  set_target_properties(sdltx_sentencepiece PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 14 UNITY_BUILD_CODE_AFTER_INCLUDE
    "#ifdef PROTOBUF_NAMESPACE\n#include <google/protobuf/port_undef.inc>\n#endif")
  find_package(Threads REQUIRED)
  target_link_libraries(sdltx_sentencepiece PUBLIC Threads::Threads)
endfunction()

sdltx_add_sentencepiece()
