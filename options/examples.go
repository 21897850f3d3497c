package options

import "strings"

// Example is one use of the daemon, for its help and its manual page.
type Example struct {
	For  string
	Args []string // an argument with blanks or quotes is shown in single quotes
}

// Examples returns what most hosts need.
func Examples() []Example {
	const network = `-network-config={"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`
	return []Example{
		{"etcd on other hosts", []string{"-etcd-endpoints=http://192.0.2.11:2379", "-ip-masq"}},
		{"no etcd of your own: the first host",
			[]string{"-etcd-embedded", "-etcd-embedded-listen=192.0.2.1:2379", "-ip-masq", network}},
		{"no etcd of your own: all others, with what \"flannelctl token create\" has printed on the first",
			[]string{"-join=TOKEN@192.0.2.1", "-ip-masq"}},
		{"another interface, and the health port with the status page", []string{"-iface=eth1", "-healthz-port=10280"}},
	}
}

// Line returns the command line of an example.
func (e Example) Line() string {
	line := "flanneld"
	for _, a := range e.Args {
		if strings.ContainsAny(a, ` "{`) {
			a = "'" + a + "'"
		}
		line += " " + a
	}
	return line
}
