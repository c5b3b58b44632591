"""What is worked on and what works: learners and compressed models, and the stages that change them."""
