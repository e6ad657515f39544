# SPDX-License-Identifier: MIT

# lk_protobuf_c(TARGET FILE.proto)
#
# A static library of the code that protobuf-c makes of FILE.proto, in the build tree. The path of
# the file is relative to the project's root and stays in the names: proto/x.proto is included as
# "proto/x.pb-c.h". Its warnings are off: nobody here can mend them.
function(lk_protobuf_c target proto)
  # protoc-c has a protoc inside; from protobuf-c 1.5 on it is deprecated in favour of the plugin.
  find_program(LK_PROTOC protoc)
  find_program(LK_PROTOC_GEN_C NAMES protoc-gen-c)
  find_program(LK_PROTOC_C protoc-c)
  mark_as_advanced(LK_PROTOC LK_PROTOC_GEN_C LK_PROTOC_C)
  if(LK_PROTOC AND LK_PROTOC_GEN_C)
    set(compiler "${LK_PROTOC}" "--plugin=protoc-gen-c=${LK_PROTOC_GEN_C}")
  elseif(LK_PROTOC_C)
    set(compiler "${LK_PROTOC_C}")
  else()
    message(FATAL_ERROR "No protobuf-c compiler: apt install protobuf-c-compiler")
  endif()

  set(out_dir "${PROJECT_BINARY_DIR}/generated")
  file(MAKE_DIRECTORY "${out_dir}")
  string(REGEX REPLACE "\\.proto$" ".pb-c" stem "${proto}")
  add_custom_command(
    OUTPUT "${out_dir}/${stem}.c" "${out_dir}/${stem}.h"
    COMMAND ${compiler} "--proto_path=${PROJECT_SOURCE_DIR}" "--c_out=${out_dir}"
            "${PROJECT_SOURCE_DIR}/${proto}"
    DEPENDS "${PROJECT_SOURCE_DIR}/${proto}"
    COMMENT "protobuf-c: ${proto}"
    VERBATIM)
  add_library(${target} STATIC "${out_dir}/${stem}.c" "${out_dir}/${stem}.h")
  target_compile_options(${target} PRIVATE -w)
  target_include_directories(${target} SYSTEM PUBLIC "${out_dir}")
  target_link_libraries(${target} PUBLIC PkgConfig::libprotobuf-c PRIVATE lk_base)
endfunction()
