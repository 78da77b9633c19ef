# Sourced by scripts/serving/*: servers without installing them, which would start them, and keep them running.

unpacked=${XDG_CACHE_HOME:-$HOME/.cache}/spraydry-servers

# unpack NAME PACKAGE...: Debian packages, with all that this machine lacks of what they need, as files only in
# $unpacked/NAME-root: there as a whole or not at all, fetched once. Calls the caller's `fail` when that cannot be.
unpack() {
    local name=$1 root=$unpacked/$1-root program
    shift
    [ ! -d "$root" ] || return 0
    for program in apt-get dpkg-deb flock; do
        command -v "$program" >/dev/null || fail "there is no $name, and without $program it cannot be fetched: install $*"
    done
    mkdir -p "$unpacked"
    exec 9>"$root.lock"
    flock 9
    if [ ! -d "$root" ]; then
        rm -rf "$root".new
        mkdir -p "$root".new/{root,lists/partial,archives/partial}
        local apt=(
            apt-get -q -o "Dir::State::lists=$root.new/lists" -o "Dir::Cache=$root.new"
            -o APT::Sandbox::User= -o Debug::NoLocking=true
        )
        "${apt[@]}" update >&2 || fail "there is no $name, and Debian's package lists cannot be fetched: install $*"
        # --reinstall: also what is installed here already, so that all of it lies in one place.
        "${apt[@]}" install -y --download-only --no-install-recommends --reinstall "$@" >&2 ||
            fail "there is no $name, and its packages cannot be fetched: install $*"
        local package
        for package in "$root".new/archives/*.deb; do dpkg-deb -x "$package" "$root.new/root"; done
        mv -T "$root.new/root" "$root"
        rm -rf "$root.new"
    fi
    exec 9>&-
}
