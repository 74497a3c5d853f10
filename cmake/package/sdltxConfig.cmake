# find_package(sdltx) gives the target sdltx::sdltx. Everything lies beside this file, wherever the package was moved to.
if(NOT TARGET sdltx::sdltx)
  get_filename_component(_sdltx_root "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
  add_library(sdltx::sdltx SHARED IMPORTED)
  set_target_properties(sdltx::sdltx PROPERTIES
    IMPORTED_LOCATION "${_sdltx_root}/libsdltx.so"
    IMPORTED_SONAME libsdltx.so
    INTERFACE_INCLUDE_DIRECTORIES "${_sdltx_root}/include")
  unset(_sdltx_root)
endif()
