/* Memcheck's requests as functions. */
#include <stddef.h>
#include <valgrind/memcheck.h>

int sshsm_ct_watched(void) { return RUNNING_ON_VALGRIND != 0; }
void sshsm_ct_hide(void *bytes, size_t length) { (void)VALGRIND_MAKE_MEM_UNDEFINED(bytes, length); }
void sshsm_ct_reveal(void *bytes, size_t length) { (void)VALGRIND_MAKE_MEM_DEFINED(bytes, length); }
/* 1 if all could be read. */
int sshsm_ct_shadow(const void *bytes, unsigned char *shadow, size_t length) {
    return VALGRIND_GET_VBITS(bytes, shadow, length) == 1;
}
