package packet

import "time"

// Timestamp is a point in time in the NTP timestamp format (RFC 5905 §6): seconds in 32 bits and their
// fraction in 32 bits, counted from the start of an era. Era 0 began on 1900-01-01, era 1 begins on
// 2036-02-07. The value 0 means unknown.
type Timestamp uint64

// ntpToUnix is the number of seconds from the start of era 0 to the Unix epoch.
const ntpToUnix = 2208988800

// FromTime returns t without its era. The zero time becomes 0.
func FromTime(t time.Time) Timestamp {
	if t.IsZero() {
		return 0
	}
	seconds := uint64(t.Unix() + ntpToUnix)
	fraction := uint64(t.Nanosecond()) << 32 / 1e9
	return Timestamp(seconds<<32 | fraction)
}

// Time returns the point in time within 68 years of near whose timestamp t is, rounded to the nanosecond.
// An unknown t becomes the zero time.
func (t Timestamp) Time(near time.Time) time.Time {
	if t == 0 {
		return time.Time{}
	}
	// In 32 bits the difference of the seconds is right in every era.
	pivot := near.Unix()
	seconds := pivot + int64(int32(uint32(t>>32)-uint32(pivot+ntpToUnix)))
	nanoseconds := (uint64(uint32(t))*1e9 + 1<<31) >> 32
	return time.Unix(seconds, int64(nanoseconds))
}

// Sub returns t-u, rounded down to the nanosecond. It is right in every era if the two lie within 68 years.
func (t Timestamp) Sub(u Timestamp) time.Duration {
	d := int64(t - u)
	return time.Duration(d>>32)*time.Second + time.Duration(uint64(uint32(d))*1e9>>32)
}

// OffsetDelay computes from the four timestamps of an exchange (RFC 5905 §8) how far the server's clock is
// ahead of the client's and how long the packets travelled: t1 the client sent, t2 the server received,
// t3 the server sent, t4 the client received.
func OffsetDelay(t1, t2, t3, t4 Timestamp) (offset, delay time.Duration) {
	return (t2.Sub(t1) + t3.Sub(t4)) / 2, t4.Sub(t1) - t3.Sub(t2)
}
