package sim

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// awsFrame is e as one message of application/vnd.amazon.eventstream: a prelude of
// total and header length with its CRC, the headers, the payload, a CRC of it all
// (https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html).
func awsFrame(e event) []byte {
	var h bytes.Buffer
	field := func(name, value string) {
		h.WriteByte(byte(len(name)))
		h.WriteString(name)
		h.WriteByte(7) // a string
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(value))))
		h.WriteString(value)
	}
	if e.exception {
		field(":exception-type", e.name)
	} else {
		field(":event-type", e.name)
	}
	field(":content-type", "application/json")
	if e.exception {
		field(":message-type", "exception")
	} else {
		field(":message-type", "event")
	}
	total := 12 + h.Len() + len(e.data) + 4
	b := make([]byte, 0, total)
	b = binary.BigEndian.AppendUint32(b, uint32(total))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Len()))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(b, h.Bytes()...)
	b = append(b, e.data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}
