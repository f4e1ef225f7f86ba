"""What the demo and the tests stand on: stand-ins for dsmc and for hosts, a RabbitMQ of their own, the demo itself."""
