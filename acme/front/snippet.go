package front

import (
	"fmt"
	"strings"
)

// elsewhere is where a web server listens, by way of example, whose port 443 a router has taken.
const elsewhere = "127.0.0.1:8443"

// byName gives a fault what mends port 80: a server for the name that leads the CA to the proof and shows nothing else.
// Where the agent does not see the Host, the web server must.
func (j Judge) byName(s Seen, a Answer, f Fault) Fault {
	how, others := fmt.Sprintf("proxy_pass http://%s; proxy_set_header Host $host;", j.Agent), ""
	if j.Webroot != "" {
		how, others = fmt.Sprintf("alias %s/;", strings.TrimSuffix(j.Webroot, "/")), " server { listen 80 default_server; listen [::]:80 default_server; return 444; }"
	}
	f.Nginx = fmt.Sprintf("server { listen 80; listen [::]:80; server_name %s; location %s { %s } location / { return 404; } }%s", s.Name, wellKnown, how, others)
	if j.Webroot == "" && !isNginx(a) { // HAProxy serves no folder
		host := hostIs(s.Name.String())
		f.HAProxy = "frontend http\n mode http\n bind :80,:::80 v6only\n" +
			" http-request deny deny_status 404 if " + host + " !{ path_beg " + wellKnown + " }\n use_backend ntsagent-http if " + host + "\n" +
			" backend ntsagent-http\n mode http\n server agent " + j.Agent.String() + "\n"
	}
	return f
}

// mute gives a fault what has port 80 show nothing by the name, where no proof is sought there.
func mute(name string, a Answer, f Fault) Fault {
	f.Nginx = fmt.Sprintf("server { listen 80; listen [::]:80; server_name %s; return 404; }", name)
	if !isNginx(a) {
		f.HAProxy = deny("http", name)
	}
	return f
}

// quiet gives a fault what has port 443 show nothing by the name.
func (j Judge) quiet(name string, a Answer, f Fault) Fault {
	if j.TLS.IsValid() {
		return j.route(name, f)
	}
	f.Nginx = fmt.Sprintf("server { listen 443 ssl; listen [::]:443 ssl; server_name %s; ssl_reject_handshake on; }", name)
	if !isNginx(a) {
		f.HAProxy = deny("https", name)
	}
	return f
}

// route gives a fault what passes TLS for the name on to the agent, whatever its ALPN: a browser finds nothing there.
func (j Judge) route(name string, f Fault) Fault {
	f.Fix += ", and have web sites listen at " + elsewhere + " instead of port 443"
	f.Nginx = fmt.Sprintf("stream { map $ssl_preread_server_name $ntsagent { %s %s; default %s; } "+
		"server { listen 443; listen [::]:443; ssl_preread on; proxy_pass $ntsagent; } }", name, j.TLS, elsewhere)
	f.HAProxy = "frontend tls\n mode tcp\n bind :443,:::443 v6only\n tcp-request inspect-delay 5s\n tcp-request content accept if { req.ssl_hello_type 1 }\n" +
		" use_backend ntsagent-tls if { req.ssl_sni -i " + name + " }\n default_backend web-tls\n" +
		" backend ntsagent-tls\n mode tcp\n server agent " + j.TLS.String() + "\n backend web-tls\n mode tcp\n server web " + elsewhere + "\n"
	return f
}

// deny is a line for a frontend of HAProxy that is there already.
func deny(frontend, name string) string {
	return "frontend " + frontend + "\n http-request deny deny_status 404 if " + hostIs(name) + "\n"
}

// hostIs is HAProxy's condition for a Host, with or without a port.
func hostIs(name string) string { return "{ req.hdr(host),field(1,:) -i " + name + " }" }

func isNginx(a Answer) bool { return strings.HasPrefix(a.Server, "nginx") }
