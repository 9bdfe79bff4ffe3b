package account

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// ParseTraceparent reads a W3C traceparent header (Trace Context, level 1). Higher
// versions are read as version 00, as the specification asks.
func ParseTraceparent(h string) (traceID, parent string, ok bool) {
	const size = len("00-") + 32 + len("-") + 16 + len("-01")
	h = strings.TrimSpace(h)
	if len(h) < size || h[2] != '-' || h[35] != '-' || h[52] != '-' {
		return "", "", false
	}
	version, traceID, parent, flags := h[:2], h[3:35], h[36:52], h[53:55]
	switch {
	case version == "ff", version == "00" && len(h) != size, len(h) > size && h[size] != '-':
		return "", "", false
	case !isHex(version), !isHex(traceID), !isHex(parent), !isHex(flags):
		return "", "", false
	case strings.Trim(traceID, "0") == "", strings.Trim(parent, "0") == "":
		return "", "", false
	}
	return traceID, parent, true
}

// isHex reports whether s is hexadecimal in lower case, the only form that the
// specification allows.
func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ids derives the trace and span id that the agent gives a record on its own. They
// depend only on what the call is, so the same call gets the same ids when it is
// exported again.
func ids(salt string, r *Record) (trace, span string) {
	c := r.Call
	h := sha256.New()
	var b [8]byte
	for _, n := range []uint64{
		uint64(c.Conn.Proc.PID), c.Conn.Proc.Start, c.Conn.Key, c.Conn.Gen,
		uint64(c.Times.Start), uint64(c.Role),
	} {
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	if c.Times.Start == 0 && !r.Time.IsZero() {
		binary.LittleEndian.PutUint64(b[:], uint64(r.Time.UnixNano()))
		h.Write(b[:])
	}
	for _, s := range []string{salt, c.ResponseID, c.SourceID} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	sum := h.Sum(nil)
	sum[0] |= 1 // ids of zeros are invalid
	sum[16] |= 1
	return hex.EncodeToString(sum[:16]), hex.EncodeToString(sum[16:24])
}
