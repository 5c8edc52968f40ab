package registry

// Record returns what a type of an NTS-KE record, without the critical bit, means; nothing if it is not
// registered, and for what has more than 15 bits.
func Record(t uint16) []Entry { return records.lookup(t) }

// Protocol returns what the id of an NTS next protocol means, nothing if it is not registered.
func Protocol(id uint16) []Entry { return protocols.lookup(id) }

// ErrorCode returns what an NTS-KE error code means, nothing if it is not registered.
func ErrorCode(n uint16) []Entry { return errorCodes.lookup(n) }

// WarningCode returns what an NTS-KE warning code means. None is registered; the private ones are known as such.
func WarningCode(n uint16) []Entry { return warningCodes.lookup(n) }

const (
	poolDraft = "draft-ietf-ntp-nts-keyexchange-pool"
	oldPool   = "draft-venhoek-nts-pool"
)

// Record types 8 to 14 were allocated early for the pool draft; 11 is what is left for its third list.
var records = numbers{
	assigned: []row{
		{0, "End of Message", "RFC 8915 §4.1.1"},
		{1, "NTS Next Protocol Negotiation", "RFC 8915 §4.1.2"},
		{2, "Error", "RFC 8915 §4.1.3"},
		{3, "Warning", "RFC 8915 §4.1.4"},
		{4, "AEAD Algorithm Negotiation", "RFC 8915 §4.1.5"},
		{5, "New Cookie for NTPv4", "RFC 8915 §4.1.6"},
		{6, "NTPv4 Server Negotiation", "RFC 8915 §4.1.7"},
		{7, "NTPv4 Port Negotiation", "RFC 8915 §4.1.8"},
		{8, "Keep Alive", poolDraft},
		{9, "Supported Next Protocol List", poolDraft},
		{10, "Supported Algorithm List", poolDraft},
		{11, "List Server Names", poolDraft + ", number not confirmed"},
		{12, "Fixed Key Request", poolDraft},
		{13, "NTP Server Deny", poolDraft},
		{14, "Pool Authentication Token", poolDraft},
		{1024, "Compliant AES-128-GCM-SIV Exporter Context", "chrony-project.org/doc/spec/nts-compliant-128gcm.html"},
	},
	firstPrivate: 16384, lastPrivate: 32767,
	privately: []row{
		{0x4000, "Keep Alive, now 8", oldPool},
		{0x4001, "Supported Algorithm List, now 10", oldPool},
		{0x4002, "Fixed Key Request, now 12", oldPool},
		{0x4003, "NTP Server Deny, now 13", oldPool},
		{0x4004, "Supported Next Protocol List, now 9", oldPool},
		{0x4005, "List Server Names", oldPool + "-03"},
		{0x4005, "Pool Authentication Token, now 14", "nts-pool, ntpd-rs and chrony-pool"},
		{0x4F01, "UUID request of a pool's monitor", "nts-pool"},
	},
	reference: "RFC 8915 §7.6",
}

var protocols = numbers{
	assigned:     []row{{0, "Network Time Protocol version 4 (NTPv4)", "RFC 8915 §7.7"}},
	firstPrivate: 0x8000, lastPrivate: 0xFFFF,
	privately: []row{{0x8001, "Network Time Protocol version 5 (NTPv5), draft", "ntpd-rs and nts-pool"}},
	reference: "RFC 8915 §7.7",
}

var errorCodes = numbers{
	assigned: []row{
		{0, "Unrecognized Critical Record", "RFC 8915 §4.1.3"},
		{1, "Bad Request", "RFC 8915 §4.1.3"},
		{2, "Internal Server Error", "RFC 8915 §4.1.3"},
	},
	firstPrivate: 0x8000, lastPrivate: 0xFFFF,
	privately: []row{
		{0xF000, "No such server", "nts-pool"},
		{0xF001, "Could not connect to the time source", "nts-pool"},
		{0xF002, "Could not get the capabilities of the time source", "nts-pool"},
		{0xF003, "Could not get cookies from the time source", "nts-pool"},
	},
	reference: "RFC 8915 §7.8",
}

var warningCodes = numbers{firstPrivate: 0x8000, lastPrivate: 0xFFFF, reference: "RFC 8915 §7.8"}
