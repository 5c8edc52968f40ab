// Package registry holds the registries of NTP (RFC 9748) and of NTS (RFC 8915 §7.6 to §7.8) as data, and the
// AEAD algorithms that NTS-KE negotiates (RFC 5116), and looks up in them: reference ids, kiss codes, extension
// field types, NTS-KE record types, next protocols, error and warning codes.
//
// Beside what is registered it knows private numbers that NTP programs are known to use; these are marked.
// A lookup is for people who read packets, logs and configurations; nothing here is for the packet path.
package registry

// PrivateUse is the meaning of a private number that no use is known of.
const PrivateUse = "Reserved for Private or Experimental Use"

// Entry is one thing a number of a registry means.
type Entry struct {
	Number    uint16
	Meaning   string // as the registry describes it
	Reference string // the document that defines it
	Private   bool   // the number cannot be registered, so that others may use it otherwise
}

// row is an assignment of a number.
type row struct {
	number             uint16
	meaning, reference string
}

// numbers is the registry of a 16-bit number: what is assigned, which private range it has, and what is known
// of the use of that.
type numbers struct {
	assigned                  []row
	firstPrivate, lastPrivate uint16
	privately                 []row
	reference                 string // for the private range
}

// lookup returns all that n means. A private number always means something.
func (r numbers) lookup(n uint16) []Entry {
	private := r.firstPrivate <= n && n <= r.lastPrivate
	rows := r.assigned
	if private {
		rows = r.privately
	}
	var found []Entry
	for _, row := range rows {
		if row.number == n {
			found = append(found, Entry{n, row.meaning, row.reference, private})
		}
	}
	if private && found == nil {
		found = []Entry{{n, PrivateUse, r.reference, true}}
	}
	return found
}
