// Package names takes names out of paths and header fields, where a program may send
// anything: valid UTF-8 of bounded length, and no part of the head they stood in.
package names

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// Max is the length of the longest name, in bytes: some of AWS's come near it.
const Max = 512

// Of returns a name as it is kept.
func Of(s string) string { return strings.Clone(Cut(s, Max)) }

// InPath returns the name in a part of a path that is still percent-encoded.
func InPath(part string) string {
	if plain, err := url.PathUnescape(part); err == nil {
		part = plain
	}
	return Of(part)
}

// Cut returns at most max bytes of s, whole characters only. What is no UTF-8 becomes
// U+FFFD.
func Cut(s string, max int) string {
	s = strings.ToValidUTF8(s[:min(len(s), 2*max)], "\uFFFD")
	if len(s) > max {
		for !utf8.RuneStart(s[max]) {
			max--
		}
		s = s[:max]
	}
	return s
}
