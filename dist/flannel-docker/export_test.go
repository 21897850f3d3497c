package main

// Rewritten parses a configuration file of docker and renders it again.
func Rewritten(text []byte) ([]byte, error) {
	object, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	return renderObject(object)
}
