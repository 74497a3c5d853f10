# Builds ggml from source, static and hidden, so that no other ggml in the process can meet it. Gives the target `ggml`.
include("${CMAKE_CURRENT_LIST_DIR}/fetch_sdist.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/vulkan.cmake")

sdltx_source_overrides(SDLTX_GGML "ggml")
option(SDLTX_CUDA "Build the CUDA backend" OFF)
option(SDLTX_PORTABLE "Build CPU kernels for several kinds of processors, of which one is chosen at run time" OFF)
string(REGEX MATCH "^(x86_64|AMD64)$" SDLTX_X86_64 "${CMAKE_SYSTEM_PROCESSOR}")

if(SDLTX_CUDA AND NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND CMAKE_VERSION VERSION_GREATER_EQUAL 3.24)
  set(CMAKE_CUDA_ARCHITECTURES native)  # all kinds of GPUs together compile for hours
  enable_language(CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES_NATIVE MATCHES "^[0-9]")
    message(FATAL_ERROR "There is no GPU here to build for. CMAKE_CUDA_ARCHITECTURES says for which ones: 86 are the RTX 30, "
      "89 the RTX 40 and 120 the RTX 50 series, and all-major is every kind.")
  endif()
endif()

# A function: ggml sees these variables, our own targets do not.
function(sdltx_add_ggml)
  set(source "${SDLTX_GGML_SOURCE_DIR}")
  if(NOT source)
    sdltx_fetch_sdist(root
      NAME libggml-python
      VERSION 0.20.2.post1
      SHA256 e47ff53506342959ffb3ce15380b82828fea10ec5f208f9ef6915895f1a7a176
      MEMBERS ggml/CMakeLists.txt ggml/cmake ggml/include ggml/src ggml/LICENSE
      OVERRIDE SDLTX_GGML)
    set(source "${root}/ggml")
  elseif(NOT EXISTS "${source}/include/ggml.h")
    message(FATAL_ERROR "SDLTX_GGML_SOURCE_DIR=${source} is not a ggml source tree: it has no include/ggml.h")
  endif()

  set(BUILD_SHARED_LIBS OFF)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  set(CMAKE_C_VISIBILITY_PRESET hidden)
  set(CMAKE_CXX_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(GGML_CCACHE OFF)
  set(GGML_ALL_WARNINGS OFF)
  set(GGML_NATIVE ON)
  if(SDLTX_PORTABLE)
    set(GGML_NATIVE OFF)
  endif()
  if(SDLTX_PORTABLE AND SDLTX_X86_64)
    set(GGML_SSE42 ON)
    foreach(feature AVX AVX2 BMI2 FMA F16C)
      set(GGML_${feature} OFF)
    endforeach()
  endif()
  set(GGML_LLAMAFILE ON)
  set(GGML_OPENMP ON)
  if(SDLTX_SANITIZE MATCHES "^(thread|fuzz)$")
    set(GGML_OPENMP OFF)
  endif()
  set(GGML_CUDA ${SDLTX_CUDA})
  set(GGML_CUDA_GRAPHS ON)
  set(GGML_CUDA_NCCL OFF)
  set(GGML_CUDA_NO_VMM ON)  # a library that needs the driver's does not load where there is none
  sdltx_decide_vulkan(vulkan "${source}")
  set(SDLTX_WITH_VULKAN ${vulkan} PARENT_SCOPE)
  set(GGML_VULKAN ${vulkan})
  set(Vulkan_LIBRARY dl)  # nothing is linked, see below
  set(GGML_RPC ON)  # devices on other machines; to the tests it is a GPU
  set(GGML_RPC_RDMA OFF)
  add_subdirectory("${source}" _ggml EXCLUDE_FROM_ALL)

  if(vulkan)
    # Its headers alone; the calls that are linked are those of csrc/ggml/vulkan_loader.cpp.
    foreach(property LINK_LIBRARIES INTERFACE_LINK_LIBRARIES)
      get_target_property(libraries ggml-vulkan ${property})
      list(FILTER libraries EXCLUDE REGEX "Vulkan::Vulkan")
      set_target_properties(ggml-vulkan PROPERTIES ${property} "${libraries}")
    endforeach()
    target_include_directories(ggml-vulkan SYSTEM PRIVATE "${Vulkan_INCLUDE_DIR}")
    # Drivers are looked for when a GPU is asked for, and not with the first use of the library: see csrc/ggml/devices.cpp.
    foreach(property COMPILE_DEFINITIONS INTERFACE_COMPILE_DEFINITIONS)
      get_target_property(definitions ggml ${property})
      list(REMOVE_ITEM definitions GGML_USE_VULKAN)
      set_target_properties(ggml PROPERTIES ${property} "${definitions}")
    endforeach()
  endif()

  # All that this file does is to replace the process's handler of uncaught exceptions when the library is loaded.
  get_target_property(sources ggml-base SOURCES)
  list(REMOVE_ITEM sources ggml.cpp)
  set_target_properties(ggml-base PROPERTIES SOURCES "${sources}")

  # A worker that goes away is an error and not the end of the process; the exception passes through ggml's C as well.
  target_compile_options(ggml-rpc PRIVATE -include "${PROJECT_SOURCE_DIR}/csrc/ggml/rpc_failures.h")
  target_compile_options(ggml-base PRIVATE $<$<COMPILE_LANGUAGE:C>:-fexceptions>
    $<$<COMPILE_LANGUAGE:C,CXX>:-include> $<$<COMPILE_LANGUAGE:C,CXX>:${PROJECT_SOURCE_DIR}/csrc/ggml/ggml_memory.h>)

  # Tensor names of checkpoints are longer than ggml's 63 characters. Every unit that sees ggml.h must agree on this.
  target_compile_definitions(ggml-base PUBLIC GGML_MAX_NAME=128)
  # Warnings in ggml's headers are not ours.
  get_target_property(headers ggml-base INTERFACE_INCLUDE_DIRECTORIES)
  set_target_properties(ggml-base ggml PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${headers}")
endfunction()

sdltx_add_ggml()
