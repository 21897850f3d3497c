// Package serve answers over HTTP how the daemon is: on the operator's socket, and on the health port with metrics and
// a page. It takes the answers from functions and changes nothing but what the operator asks for.
package serve
