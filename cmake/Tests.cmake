# SPDX-License-Identifier: MIT
#
# How tests get into CTest. Each has a time limit and fails on any sanitizer's report, also on one
# that a child process made and survived.
#
# Labels choose what runs where. Without LABELS a test gets the name of its folder (unit,
# integration, stress, ...). These mean something to the presets:
#   release  says something only about the optimised build: not run by `dev`, run by `release`
#   model    independent of the build: run once, by `release`
#   demo     the demo: run by the test preset `demo`; also has `release`, so that the tests run it
#   stress   run by `dev` and by `tsan`

# Criterion's tagged asserts assign an int to a one-bit field, and keep strings in char *.
# Linked after lk_flags, so that these options come later and win.
if(LK_TESTS)
  add_library(lk_criterion INTERFACE)
  target_compile_options(lk_criterion INTERFACE -Wno-conversion -Wno-write-strings)
  target_link_libraries(lk_criterion INTERFACE PkgConfig::criterion)
endif()

# lk_test_defaults(NAME [TIMEOUT s] [LABELS ...] [SERIAL] [FAIL_ON regex])
# Sets the common properties of an existing test; call it for tests made with add_test(). The fixture
# looks before the first and after the last one for what tests leave behind (tests/support).
function(lk_test_defaults name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SERIAL" "TIMEOUT;FAIL_ON" "LABELS")
  lk_refuse_unparsed("lk_test_defaults(${name})" "${arg_UNPARSED_ARGUMENTS}")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  if(NOT arg_LABELS)
    cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME arg_LABELS)
  endif()
  set(fail_on "Sanitizer:" "runtime error:")
  if(arg_FAIL_ON)
    list(APPEND fail_on "${arg_FAIL_ON}")
  endif()
  set_tests_properties(
    ${name}
    PROPERTIES TIMEOUT "${arg_TIMEOUT}"
               LABELS "${arg_LABELS}"
               FAIL_REGULAR_EXPRESSION "${fail_on}"
               ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1"
               RUN_SERIAL "${arg_SERIAL}"
               FIXTURES_REQUIRED leftovers)
endfunction()

# lk_criterion_test(NAME sources... [LIBS ...] [TIMEOUT s] [LABELS ...] [SERIAL])
# One binary of Criterion tests, one CTest entry. Criterion exits with 0 when it found no test to
# run, and when an assertion failed in a .fini function (leaked descriptors, say); here both are
# failures.
function(lk_criterion_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SERIAL" "TIMEOUT" "LIBS;LABELS")
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE lk_flags lk_criterion ${arg_LIBS})
  # Criterion does not start under ThreadSanitizer: do not even build it there.
  if("thread" IN_LIST LK_SANITIZE)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL TRUE)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  lk_test_forward()
  lk_test_defaults(${name} ${forwarded} FAIL_ON "Tested: 0[^0-9]|Assertion Failed")
endfunction()

# lk_program_test(NAME sources... [LIBS ...] [ARGS ...] [TIMEOUT s] [LABELS ...] [SERIAL])
# A plain program whose exit code is the verdict.
function(lk_program_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SERIAL" "TIMEOUT" "LIBS;LABELS;ARGS")
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE lk_flags ${arg_LIBS})
  add_test(NAME ${name} COMMAND ${name} ${arg_ARGS})
  lk_test_forward()
  lk_test_defaults(${name} ${forwarded})
endfunction()

# Leaves in `forwarded` those arguments of the caller that belong to lk_test_defaults().
macro(lk_test_forward)
  set(forwarded "")
  if(arg_SERIAL)
    list(APPEND forwarded SERIAL)
  endif()
  if(arg_TIMEOUT)
    list(APPEND forwarded TIMEOUT "${arg_TIMEOUT}")
  endif()
  if(arg_LABELS)
    list(APPEND forwarded LABELS ${arg_LABELS})
  endif()
endmacro()

function(lk_refuse_unparsed where unparsed)
  if(unparsed)
    message(FATAL_ERROR "${where}: unknown arguments: ${unparsed}")
  endif()
endfunction()
