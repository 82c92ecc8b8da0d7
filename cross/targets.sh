# Read by the scripts beside it: what a gateway build needs, by target. Nothing here changes an ordinary build.
# shellcheck shell=bash disable=SC2034 # what is set here is read there

all_targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf)

# What must hold for what is shipped.
budget_mb=13      # a stripped binary, in MB of 1,000,000 bytes; 12 is the aim (docs/decisions/0006)
newest_glibc=2.36 # the newest glibc that a gateway must have: Debian 12's

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# target NAME: sets target, and what follows from it.
# - tools: the prefix of Debian's cross tools; packages: what brings them
# - machine: what the ELF header says
# - emulator: the program of qemu-user
target() {
    target=$1
    case $target in
        aarch64-unknown-linux-gnu)
            tools=aarch64-linux-gnu packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
            machine=AArch64 emulator=qemu-aarch64
            ;;
        armv7-unknown-linux-gnueabihf)
            tools=arm-linux-gnueabihf packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross)
            machine=ARM emulator=qemu-arm
            ;;
        *) die "no such target here: $target (there are: ${all_targets[*]})" ;;
    esac
    sysroot=/usr/$tools
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# debian PACKAGE...: installs them.
debian() {
    say "installing $*"
    command -v apt-get >/dev/null || die "missing: the Debian packages $* (there is no apt-get here)"
    { as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } </dev/null >/dev/null ||
        die "missing: the Debian packages $* (they could not be installed; as root: apt-get install $*)"
}

# Whether the target's C compiler compiles and links.
compiles() {
    command -v "$tools-gcc" >/dev/null &&
        printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' | "$tools-gcc" -x c - -o /dev/null 2>/dev/null
}

# Whether rustc has the target's standard library.
knows_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]]; }

# What cargo needs to build for the target: the compiler for ring and for linking. What the caller has set stays.
build_tools() {
    command -v cargo >/dev/null || die 'missing: cargo (https://rustup.rs)'
    compiles || debian "${packages[@]}"
    compiles || die "$tools-gcc is there and does not link a program; it needs: ${packages[*]}"
    if ! knows_target; then
        command -v rustup >/dev/null || die "missing: the standard library of Rust for $target (there is no rustup here)"
        rustup target add "$target" || die "missing: the standard library of Rust for $target (rustup target add $target failed)"
    fi
    local lower=${target//-/_} linker
    linker=CARGO_TARGET_${lower^^}_LINKER
    export "$linker=${!linker:-$tools-gcc}"
    local cc=CC_$lower ar=AR_$lower
    export "$cc=${!cc:-$tools-gcc}" "$ar=${!ar:-$tools-ar}"
}

# Messages name a library's source without where this machine keeps it: smaller, and the same from every machine.
short_paths() {
    local flags=CARGO_TARGET_${target//-/_} folder
    flags=${flags^^}_RUSTFLAGS
    for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        export "$flags=${!flags:-} --remap-path-prefix=$folder="
    done
}

# The dynamic linker relocates what moves with the program from a bitmap instead of 24 bytes a place: by Rust's own lld, since
# Debian 12's binutils cannot for ARM. glibc can from 2.36 on, and the program says so to an older one.
packed_relocations() {
    local flags=CARGO_TARGET_${target//-/_} lld
    flags=${flags^^}_RUSTFLAGS
    lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/gcc-ld
    [[ -x $lld/ld.lld ]] || die "missing: $lld/ld.lld, which Rust's own toolchains bring"
    export "$flags=${!flags:-} -Clink-arg=-fuse-ld=lld -Clink-arg=-B$lld -Clink-arg=-Wl,-z,pack-relative-relocs"
    if [[ $target == aarch64-* ]]; then
        # What many functions have in common, once.
        export "$flags=${!flags} -Cllvm-args=-enable-machine-outliner=always"
    fi
}

# qemu-user, static or not: sets emulator to the command that runs a program of the target, without binfmt_misc.
emulate() {
    command -v "$emulator" >/dev/null || command -v "$emulator-static" >/dev/null || debian qemu-user
    command -v "$emulator" >/dev/null || emulator=$emulator-static
    # gemba run starts itself over to have this (docs/decisions/0004-one-heap.md). Here that would start the host's shell
    # on a foreign program, unless the kernel knows the emulator.
    export MALLOC_ARENA_MAX=1
    emulator="$emulator -L $sysroot"
}

# Where cargo puts what it builds.
target_directory() {
    cargo metadata --no-deps --offline --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# The gateway's binary of the target.
binary() { printf '%s/%s/release/gemba\n' "$(target_directory)" "$target"; }

# usage "$0": the comment at the script's head.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"; }
