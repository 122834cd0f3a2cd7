//! How much memory the allocator holds on to.

/// Where threads get memory from. The C library's default is eight a core, and memory that was freed in
/// one is of no use to another: a coordinator at rest after much work held a fifth more.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has all threads share a few pools of memory. To be called before there are threads.
pub(crate) fn share() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's setting has no safe binding")]
        // SAFETY: It sets a number that the allocator reads when a thread first asks for memory.
        let _more_memory_if_not = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}
