package record

import (
	"errors"
	"fmt"
	"io"
)

// A message of nothing but empty records stops being read after this many. RFC 8915 §4 wants 1024 octets
// accepted, which is 256 of the shortest records.
const maxRecords = 256

// errPartial says that octets are missing. Of all faults of a message only this can be mended by reading on.
var errPartial = fault("message is not complete")

// frame walks the records of b as far as they are whole and returns where End of Message ends. It returns
// errPartial when b stops before that, and another error when b can be no prefix of a good message of at
// most max octets. from and count are where an earlier walk stopped.
func frame(b []byte, max int, from, count *int) (end int, err error) {
	for {
		rest := b[*from:]
		if len(rest) >= headerLen {
			if n := *from + headerLen + int(rest[2])<<8 + int(rest[3]); n > max {
				return 0, fault("message is longer than %d octets", max)
			}
		} else if *from+headerLen > max {
			return 0, fault("message is longer than %d octets", max)
		}
		r, rest, ok := next(rest)
		if !ok {
			return 0, errPartial
		}
		if *count++; *count > maxRecords {
			return 0, fault("message has more than %d records", maxRecords)
		}
		*from = len(b) - len(rest)
		if r.kind != EndOfMessage {
			continue
		}
		switch {
		case len(r.body) != 0:
			return 0, fault("body of End of Message is not empty")
		case !r.critical:
			return 0, fault("critical bit of End of Message is not set")
		case len(rest) != 0:
			return 0, fault("octets follow End of Message")
		}
		return *from, nil
	}
}

// read reads one message of at most max octets and not one call more than that takes: the peer keeps its
// side open and waits for us once End of Message is there.
func read(r io.Reader, max int) ([]byte, error) {
	buf := make([]byte, 0, min(max, 1024))
	var from, count, idle int
	for {
		if len(buf) == cap(buf) {
			// frame has said that more than this is to come and that it stays within max.
			buf = append(make([]byte, 0, min(max, 4*cap(buf))), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			idle = 0
			_, ferr := frame(buf, max, &from, &count)
			if ferr == nil {
				return buf, nil
			}
			if ferr != errPartial {
				return nil, ferr
			}
		} else if idle++; err == nil && idle > 100 {
			err = io.ErrNoProgress
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fault("stream ended before End of Message")
		default:
			return nil, fmt.Errorf("read NTS-KE message: %w", err)
		}
	}
}
