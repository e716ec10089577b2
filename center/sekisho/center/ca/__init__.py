"""The device CA: who may call itself which box, from the enrolment code to the revocation."""
