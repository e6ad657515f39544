# SPDX-License-Identifier: MIT
#
# lk_base:  how everything here is compiled: language, visibility, sanitizers.
# lk_flags: lk_base and the warnings; what every hand-written target links, PRIVATE.
# Generated code links lk_base alone.

option(LK_WERROR "Warnings are errors" OFF)
option(LK_STEPS "Hooks between shared accesses, where tests stop or kill a process" OFF)
option(LK_COVERAGE "Count which lines run" OFF)
option(LK_FUZZ "Compile everything with libFuzzer's edge counters (clang)" OFF)
set(LK_SANITIZE "" CACHE STRING "Sanitizers: 'address;undefined', 'thread' or empty")

add_library(lk_base INTERFACE)
target_compile_features(lk_base INTERFACE c_std_17)
target_compile_definitions(lk_base INTERFACE _GNU_SOURCE $<$<BOOL:${LK_STEPS}>:LKI_STEPS=1>)
target_compile_options(lk_base INTERFACE -fvisibility=hidden)
target_include_directories(
  lk_base INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>"
                    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>")
# The static libraries end up in the shared one too.
set_target_properties(lk_base PROPERTIES INTERFACE_POSITION_INDEPENDENT_CODE ON)

if(LK_SANITIZE)
  list(JOIN LK_SANITIZE "," sanitizers)
  # Without -fno-sanitize-recover, undefined behaviour would be a line in a log and exit code 0.
  target_compile_options(lk_base INTERFACE -fsanitize=${sanitizers} -fno-sanitize-recover=all
                                           -fno-omit-frame-pointer)
  target_link_options(lk_base INTERFACE -fsanitize=${sanitizers})
endif()
if(LK_COVERAGE)
  target_compile_options(lk_base INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(lk_base INTERFACE --coverage)
endif()
if(LK_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "LK_FUZZ needs clang; use the preset 'fuzz'")
  endif()
  target_compile_options(lk_base INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(lk_base INTERFACE -fsanitize=fuzzer-no-link)
endif()

add_library(lk_flags INTERFACE)
target_link_libraries(lk_flags INTERFACE lk_base)
# Not -Wsign-conversion: with it every ssize_t, fd and index grows a cast, and casts hide the
# narrowing that -Wconversion finds.
target_compile_options(
  lk_flags
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wconversion
            -Wno-sign-conversion
            -Wstrict-prototypes
            -Wmissing-prototypes
            -Wpointer-arith
            -Wwrite-strings
            -Wundef
            -Wvla
            -Wformat=2
            $<$<BOOL:${LK_WERROR}>:-Werror>)
