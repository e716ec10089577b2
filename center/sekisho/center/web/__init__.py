"""The centre's web service: enrolment and renewal for boxes, signed links and pages for people."""
