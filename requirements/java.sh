# Finds a Java that Spark 4.1 runs on (17 or 21), and installs one where root may. Meant to be sourced:
# it sets JAVA_HOME only if the `java` that Spark would start by itself does not serve.
# Exits with code 2, the code of a configuration error, if there is none.

fits() {
    case "$("$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)" in
        17 | 21) return 0 ;;
        *) return 1 ;;
    esac
}

find_java() {
    if [ -n "${JAVA_HOME:-}" ]; then
        fits "$JAVA_HOME/bin/java" && return 0
    elif command -v java >/dev/null 2>&1 && fits java; then
        return 0
    fi
    for home in /usr/lib/jvm/*-17-* /usr/lib/jvm/*-21-*; do
        if [ -x "$home/bin/java" ] && fits "$home/bin/java"; then
            export JAVA_HOME="$home"
            return 0
        fi
    done
    return 1
}

install_java() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    echo "Java 17 or 21 is missing; installing it with apt-get." >&2
    apt-get update -qq >&2 || return 1
    # Debian 12 has 17, Debian 13 has 21, Ubuntu 24.04 has both.
    for version in 17 21; do
        if apt-cache policy "openjdk-$version-jre-headless" | grep -q 'Candidate: [0-9]'; then
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                "openjdk-$version-jre-headless" >&2 && return 0
        fi
    done
    return 1
}

if ! find_java && ! { install_java && find_java; }; then
    echo "Spark needs Java 17 or 21, and there is none here. On Debian or Ubuntu:" >&2
    echo "    sudo apt-get install openjdk-17-jre-headless   # or openjdk-21-jre-headless" >&2
    echo "Elsewhere install a JDK 17 or 21 and set JAVA_HOME to it." >&2
    exit 2
fi
