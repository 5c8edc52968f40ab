package challenge

import (
	"net/http"

	"ntsagent/hostcheck"
)

// Redirect stands before a Responder on the HTTP-01 port and leads whoever comes by one of Hosts to To, as pools ask of
// their members. A pending proof goes before it, and for every other host the Responder's rules hold unchanged. To is
// the operator's word alone: nothing of a request gets into the answer.
type Redirect struct {
	Hosts     hostcheck.Set // the zero Set leads nobody
	To        string        // absolute URL
	Responder *Responder
}

// ServeHTTP answers 301 to GET and HEAD, and 308 to other methods, which a browser then keeps.
func (d Redirect) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if _, status := d.Hosts.Check(req); status != 0 || d.Responder.pendingFor(req) {
		d.Responder.ServeHTTP(w, req)
		return
	}
	hangUp(w, req)
	status := http.StatusPermanentRedirect
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.Header().Set("Location", d.To)
	d.Responder.refuseHTTP(w, req, status)
}

// pendingFor says whether the request is for a pending proof, by the host that it is pending for.
func (r *Responder) pendingFor(req *http.Request) bool {
	name, status := r.names.Check(req)
	proof := r.proofAt(req)
	return status == 0 && proof != nil && proof.name == name
}
